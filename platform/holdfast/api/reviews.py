"""Reviews: requests for labels, the rows one by one or as a table, and what the answers say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from holdfast.api.dependencies import Caller, HouseOf
from holdfast.api.failures import documented
from holdfast.api.given import Given, as_text
from holdfast.api.tasks import TaskPath
from holdfast.domain.ids import CaptureId, ReviewId, TaskName
from holdfast.domain.review import LEAST_ROWS, MOST_ROWS, USUAL_ROWS, LabelRequest
from holdfast.domain.review_csv import write_rows
from holdfast.domain.review_evidence import ReviewEvidence
from holdfast.flows import review
from holdfast.ports import House

router = APIRouter(tags=["reviews"])
CSV_RESPONSE: dict[int | str, dict[str, object]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


class ReviewWanted(BaseModel):
    """A request for labels."""

    model_config = ConfigDict(extra="forbid")
    row_count: Annotated[int, Field(ge=LEAST_ROWS, le=MOST_ROWS, description="Different captures to label.")] = USUAL_ROWS


class AnswerSent(BaseModel):
    """What the answer to one row should have been."""

    model_config = ConfigDict(extra="forbid")
    capture_id: Annotated[str, Field(min_length=1, max_length=200)]
    value: Given


class RowNamed(BaseModel):
    """One row."""

    model_config = ConfigDict(extra="forbid")
    capture_id: Annotated[str, Field(min_length=1, max_length=200)]


class CloseWanted(BaseModel):
    """Why nobody goes on."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, Field(min_length=1, max_length=500)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewView:
    """How one request stands, without its rows."""

    request_id: str
    task: str
    adapter_digest: str
    alert_id: str | None
    asked_by: str
    asked_at: datetime
    expires_at: datetime
    state: str
    closed_because: str
    row_count: int
    answered_count: int
    skipped_count: int
    open_count: int
    evidence: ReviewEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class RowView:
    """One row to label. What the model answered is absent unless it was asked for: who sees it tends to agree."""

    capture_id: str
    text: str
    answer: str | None
    confidence: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NextRow:
    """The next row, and how the request stands."""

    row: RowView | None
    review: ReviewView


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a table."""

    answer_count: int
    review: ReviewView


def review_view(house: House, request: LabelRequest) -> ReviewView:
    """The view of a request with what its answers say now."""
    return ReviewView(
        request_id=request.request_id, task=request.task, adapter_digest=request.adapter_digest, alert_id=request.alert_id,
        asked_by=request.asked_by, asked_at=request.asked_at, expires_at=request.expires_at, state=request.state,
        closed_because=request.closed_because, row_count=len(request.rows), answered_count=request.answered_count,
        skipped_count=request.skipped_count, open_count=request.open_count, evidence=review.look(house, request),
    )  # fmt: skip


def table_of(house: House, request: LabelRequest, *, shown: bool) -> Response:
    """The rows that wait, as a CSV to be saved."""
    texts = house.log.texts(request.task, [row.capture_id for row in request.rows if row.is_open])
    headers = {"Content-Disposition": f'attachment; filename="{request.task}-{request.request_id}.csv"'}
    return Response(write_rows(request.rows, texts, shown=shown), media_type="text/csv; charset=utf-8", headers=headers)


def _request(house: House, request_id: str) -> LabelRequest:
    with house.unit_of_work() as work:
        return work.reviews.get(ReviewId(request_id))


@router.get("/tasks/{task}/reviews", summary="Requests for labels of a task, newest first", responses=documented(404))
def list_reviews(task: TaskPath, house: HouseOf, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> list[ReviewView]:
    """Each with what its answers say."""
    with house.unit_of_work() as work:
        contract = work.contracts.get(TaskName(task))
        found = work.reviews.of_task(contract.task, limit)
    return [review_view(house, request) for request in found]


@router.post("/tasks/{task}/reviews", status_code=201, summary="Ask for labels", responses=documented(404, 409))
def ask_review(task: TaskPath, wanted: ReviewWanted, house: HouseOf, caller: Caller) -> ReviewView:
    """On the change of the task's open alert, or on the newest traffic. One request of a task is open at a time (409)."""
    return review_view(house, review.ask(house, TaskName(task), row_count=wanted.row_count, actor=caller))


@router.get("/reviews/{request_id}", summary="One request for labels", responses=documented(404))
def show_review(request_id: str, house: HouseOf) -> ReviewView:
    """How it stands, and what its answers say."""
    return review_view(house, _request(house, request_id))


@router.get("/reviews/{request_id}/next", summary="The next row to label", responses=documented(404))
def next_row(request_id: str, house: HouseOf, show: Annotated[bool, Query(description="Also what the model answered.")] = False) -> NextRow:
    """The first row that waits; null when none does."""
    request = _request(house, request_id)
    row = request.next_row if request.state == "open" else None
    view = None
    if row is not None:
        text = house.log.texts(request.task, [row.capture_id]).get(row.capture_id, "")
        view = RowView(capture_id=row.capture_id, text=text, answer=row.said if show else None, confidence=row.confidence if show else None)
    return NextRow(row=view, review=review_view(house, request))


@router.post("/reviews/{request_id}/answers", status_code=201, summary="Label one row", responses=documented(404, 409))
def answer_row(request_id: str, sent: AnswerSent, house: HouseOf, caller: Caller) -> ReviewView:
    """The label is stored with the source `review`. Another answer to the same row replaces the first."""
    changed = review.answer(house, ReviewId(request_id), CaptureId(sent.capture_id), as_text(sent.value), by=caller)
    return review_view(house, changed)


@router.post("/reviews/{request_id}/skips", status_code=201, summary="Leave one row out", responses=documented(404, 409))
def skip_row(request_id: str, named: RowNamed, house: HouseOf, caller: Caller) -> ReviewView:
    """It counts as right for the lower bound and as wrong for the upper one."""
    return review_view(house, review.skip(house, ReviewId(request_id), CaptureId(named.capture_id), by=caller))


@router.post("/reviews/{request_id}/undo", summary="Take the newest answer or skip back", responses=documented(404, 409))
def undo(request_id: str, house: HouseOf) -> ReviewView:
    """Its row is asked again."""
    return review_view(house, review.take_back(house, ReviewId(request_id)))


@router.get(
    "/reviews/{request_id}/table", summary="The rows that wait, as CSV", response_class=Response, responses=documented(404) | CSV_RESPONSE
)
def export_table(
    request_id: str, house: HouseOf, show: Annotated[bool, Query(description="Also what the model answered.")] = False
) -> Response:
    """Columns `capture_id`, `text` and an empty `label`."""
    return table_of(house, _request(house, request_id), shown=show)


@router.put("/reviews/{request_id}/table", summary="Answers as CSV", responses=documented(404, 409))
def import_table(request_id: str, table: Annotated[str, Body(media_type="text/csv")], house: HouseOf, caller: Caller) -> Imported:
    """Columns `capture_id` and `label`; lines without a label are left out. All or none: every wrong line is named (422)."""
    changed, count = review.import_answers(house, ReviewId(request_id), table, by=caller)
    return Imported(answer_count=count, review=review_view(house, changed))


@router.post("/reviews/{request_id}/close", summary="Close a request", responses=documented(404))
def close_review(request_id: str, wanted: CloseWanted, house: HouseOf, caller: Caller) -> ReviewView:
    """Its labels stay; its evidence counts as far as it goes."""
    return review_view(house, review.close(house, ReviewId(request_id), actor=caller, reason=wanted.reason))
