"""The buttons of the console. Each form carries the token of its session and does what the REST route does."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse

from holdfast.api.alerts import Answer, answer_alert
from holdfast.api.console.sessions import csrf_valid
from holdfast.api.dependencies import Caller, HouseOf
from holdfast.domain.captures import Label
from holdfast.domain.ids import AdapterDigest, AlertId, CaptureId, TaskName
from holdfast.errors import RequestInvalid
from holdfast.flows import promote, record, retrain

Reason = Annotated[str, Form(max_length=500)]
Expected = Annotated[int, Form(ge=0)]


def genuine(request: Request, csrf: Annotated[str, Form()] = "") -> None:
    """Raises RequestInvalid when the form is not one of this session's pages."""
    session = request.state.session
    if session is None or not csrf_valid(session, csrf):
        raise RequestInvalid(place="csrf", problem="the form is not one of this session", remedy="reload the page and press again")


router = APIRouter(prefix="/tasks/{task}", dependencies=[Depends(genuine)])


def _back(task: str, place: str) -> RedirectResponse:
    return RedirectResponse(f"/tasks/{task}#{place}", status_code=303)


@router.post("/promote")
def press_promote(
    task: str, *, house: HouseOf, caller: Caller, digest: Annotated[str, Form()], expected: Expected, reason: Reason = ""
) -> RedirectResponse:
    """Refused by the gate, or by a champion that moved since the page was made."""
    promote.promote(
        house,
        TaskName(task),
        digest=AdapterDigest(digest),
        actor=caller,
        reason=reason or "pressed in the console",
        expected_generation=expected,
    )
    return _back(task, "versions")


@router.post("/rollback")
def press_roll_back(task: str, house: HouseOf, caller: Caller, expected: Expected, reason: Reason = "") -> RedirectResponse:
    """Back to the previous champion."""
    promote.roll_back(house, TaskName(task), actor=caller, reason=reason or "pressed in the console", expected_generation=expected)
    return _back(task, "versions")


@router.post("/retrain")
def press_retrain(
    task: str, *, house: HouseOf, caller: Caller, key: Annotated[str, Form(max_length=100)], reason: Reason = "",
    anyway: Annotated[bool, Form()] = False,
) -> RedirectResponse:  # fmt: skip
    """Pressing twice on one page is asking once: the page gave the key."""
    retrain.request(house, TaskName(task), reason=reason or "asked for in the console", actor=caller, key=f"console {key}", anyway=anyway)
    return _back(task, "retrainings")


@router.post("/label")
def press_label(
    task: str,
    house: HouseOf,
    caller: Caller,
    capture_id: Annotated[str, Form(max_length=200)],
    value: Annotated[list[str], Form()] = [],  # noqa: B006
) -> RedirectResponse:
    """The right label of one capture."""
    name = TaskName(task)
    with house.unit_of_work() as work:
        kind = work.contracts.get(name).kind
    given = json.dumps(value) if kind == "multi-label" else "".join(value[:1])  # no box checked: none of the labels fits
    label = Label(capture_id=CaptureId(capture_id), task=name, value=given, source=f"console:{caller}", labelled_at=house.clock())
    record.record_labels(house, name, [label])
    return _back(task, "captures")


@router.post("/alerts/{alert_id}/{answer}")
def press_alert(task: str, alert_id: str, answer: Answer, house: HouseOf, caller: Caller) -> RedirectResponse:
    """Acknowledge or close."""
    answer_alert(house, AlertId(alert_id), answer, caller)
    return _back(task, "alerts")
