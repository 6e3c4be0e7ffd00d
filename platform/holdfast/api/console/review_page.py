"""The page on which people label the rows of a review: one at a time, by keys alone; and its buttons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup

from holdfast.api.console.forms import genuine
from holdfast.api.console.plots import range_bar
from holdfast.api.console.render import page
from holdfast.api.console.task_page import choices
from holdfast.api.dependencies import Caller, HouseOf
from holdfast.api.reviews import table_of
from holdfast.domain.ids import CaptureId, ReviewId, TaskName
from holdfast.domain.labelling import FORMS
from holdfast.domain.review import LEAST_ROWS, MOST_ROWS, USUAL_ROWS, LabelRequest
from holdfast.domain.review_evidence import ReviewEvidence, allowed_loss, evidence_of
from holdfast.domain.statistics.confidence import Interval
from holdfast.domain.tasks import TaskContract
from holdfast.errors import NotFound, RequestInvalid
from holdfast.flows import review
from holdfast.ports import House

router = APIRouter(prefix="/tasks/{task}/review")
KEYS = "123456789abcdefghijklmnopqrtvwxyz"
"""Of the labels, in their order; `s` skips and `u` takes back."""
SHOWN_EARLIER = 5
MANY = len(KEYS)
"""With more labels than keys the filter has the focus."""
Asked = Annotated[str, Form(max_length=200)]
Show = Annotated[bool, Form()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One line of the running estimate."""

    name: str
    found: Interval
    bar: Markup


@router.get("")
def show_review(task: str, request: Request, house: HouseOf, show: bool = False) -> HTMLResponse:
    """The row that waits, the labels, and what the answers say so far; without an open review, the way to ask for one."""
    with house.unit_of_work() as work:
        contract = work.contracts.get(TaskName(task))
        asked = work.reviews.open_of(contract.task)
        earlier = (
            () if asked else work.reviews.of_task(contract.task, SHOWN_EARLIER)
        )  # every row is read anew, so only where they are shown
        labels = choices(contract, work.versions.of_task(contract.task))
        can_ask = work.assignments.get(contract.task) is not None
    row, last = (asked.next_row, asked.last_row) if asked else (None, None)
    evidence = evidence_of(asked, contract) if asked else None
    return page(
        "review.html",
        request,
        task=task,
        contract=contract,
        asked=asked,
        row=row,
        last=last,
        texts=house.log.texts(contract.task, [r.capture_id for r in (row, last) if r]),
        labels=list(zip(labels, [*KEYS, *[""] * len(labels)], strict=False)),
        many=len(labels) > MANY,
        show=show,
        evidence=evidence,
        estimates=_estimates(asked, evidence, contract) if asked and evidence else [],
        form_words=FORMS["extraction"],
        earlier=[(r, evidence_of(r, contract)) for r in earlier],
        can_ask=can_ask,
        limits=(LEAST_ROWS, USUAL_ROWS, MOST_ROWS),
    )


@router.get("/table")
def save_table(task: str, house: HouseOf, show: bool = False) -> Response:
    """The rows that wait, as CSV."""
    return table_of(house, _open(house, task), shown=show)


@router.post("/answer", dependencies=[Depends(genuine)])
def press_answer(
    task: str,
    *,
    house: HouseOf,
    caller: Caller,
    request_id: Asked,
    capture_id: Asked,
    value: Annotated[list[str], Form()] = [],  # noqa: B006
    show: Show = False,
) -> RedirectResponse:
    """The right answer to one row."""
    with house.unit_of_work() as work:
        kind = work.contracts.get(TaskName(task)).kind
    given = json.dumps([one for one in value if one.strip()]) if kind == "multi-label" else "".join(value[:1])
    review.answer(house, ReviewId(request_id), CaptureId(capture_id), given, by=caller)
    return _on(task, show)


@router.post("/skip", dependencies=[Depends(genuine)])
def press_skip(task: str, *, house: HouseOf, caller: Caller, request_id: Asked, capture_id: Asked, show: Show = False) -> RedirectResponse:
    """Leave the row out."""
    review.skip(house, ReviewId(request_id), CaptureId(capture_id), by=caller)
    return _on(task, show)


@router.post("/undo", dependencies=[Depends(genuine)])
def press_undo(task: str, house: HouseOf, request_id: Asked, show: Show = False) -> RedirectResponse:
    """Take the newest answer or skip back."""
    review.take_back(house, ReviewId(request_id))
    return _on(task, show)


@router.post("/ask", dependencies=[Depends(genuine)])
def press_ask(task: str, house: HouseOf, caller: Caller, row_count: Annotated[int, Form()] = USUAL_ROWS) -> RedirectResponse:
    """Ask for labels."""
    review.ask(house, TaskName(task), row_count=row_count, actor=caller)
    return _on(task, False)


@router.post("/close", dependencies=[Depends(genuine)])
def press_close(
    task: str, house: HouseOf, caller: Caller, request_id: Asked, reason: Annotated[str, Form(max_length=500)] = ""
) -> RedirectResponse:
    """End it; its labels stay."""
    review.close(house, ReviewId(request_id), actor=caller, reason=reason or "closed in the console")
    return _on(task, False)


@router.post("/table", dependencies=[Depends(genuine)])
def press_table(task: str, house: HouseOf, caller: Caller, request_id: Asked, table: UploadFile) -> RedirectResponse:
    """Take a filled-in CSV: all of it or nothing."""
    try:
        words = table.file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8"
        raise RequestInvalid(place="table", problem=problem, remedy="save it as CSV in UTF-8 and send it again") from None
    review.import_answers(house, ReviewId(request_id), words, by=caller)
    return _on(task, False)


def _on(task: str, show: bool) -> RedirectResponse:
    return RedirectResponse(f"/tasks/{task}/review{'?show=1' if show else ''}", status_code=303)


def _open(house: House, task: str) -> LabelRequest:
    with house.unit_of_work() as work:
        found = work.reviews.open_of(TaskName(task))
    if found is None:
        raise NotFound(kind="open review of task", name=task)
    return found


def _estimates(request: LabelRequest, evidence: ReviewEvidence, contract: TaskContract) -> Sequence[Estimate]:
    """The losses on one scale, each beside what it is measured by: the floor, and before the change nothing but itself."""
    named = (("since the change" if request.onset_seq else "newest traffic", evidence.since), ("before the change", evidence.before))
    found = [(name, one) for name, one in named if one is not None]
    allowed = allowed_loss(contract)
    return [Estimate(name=name, found=one, bar=range_bar(one.lower, one.mean, one.upper, allowed, scale=(0.0, 1.0))) for name, one in found]
