"""Alerts: what is open, and what a person says of it."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from fastapi import APIRouter

from holdfast.api.dependencies import Caller, HouseOf
from holdfast.api.failures import documented
from holdfast.domain.alerts import Alert, AlertState
from holdfast.domain.ids import AlertId, TaskName
from holdfast.errors import Conflict
from holdfast.ports import House

router = APIRouter(prefix="/alerts", tags=["alerts"])


class Answer(StrEnum):
    """What a person says of an alert."""

    acknowledge = "acknowledge"
    resolve = "resolve"
    false_alarm = "false-alarm"


STATES: dict[Answer, AlertState] = {Answer.acknowledge: "acknowledged", Answer.resolve: "resolved", Answer.false_alarm: "false alarm"}


def answer_alert(house: House, alert_id: AlertId, answer: Answer, actor: str) -> Alert:
    """Move an alert and write the ledger row, in one transaction. The same answer again is no change.

    Raises NotFound, and Conflict when the alert is closed already.
    """
    now, state = house.clock(), STATES[answer]
    with house.unit_of_work() as work:
        alert = work.alerts.get(alert_id)
        if alert.state == state:
            return alert
        if alert.state in ("resolved", "false alarm"):
            raise Conflict(problem=f"Alert {alert_id} is closed already ({alert.state}).")
        closed = answer is not Answer.acknowledge
        moved = replace(alert, state=state, updated_at=now, resolved_at=now if closed else None)
        work.alerts.put(moved)
        work.ledger.append(at=now, kind=f"alert.{state}", task=alert.task, actor=actor, body={"alert": alert_id})
        work.commit()
    return moved


@router.get("", summary="Alerts of a task, newest first; without a task every open one, oldest first", responses=documented(404))
def list_alerts(house: HouseOf, task: str | None = None) -> list[Alert]:
    """Each with its diagnosis."""
    with house.unit_of_work() as work:
        if task is None:
            return list(work.alerts.unresolved())
        work.contracts.get(TaskName(task))
        return list(work.alerts.of_task(TaskName(task)))


@router.post("/{alert_id}/{answer}", summary="Acknowledge or close an alert", responses=documented(404, 409))
def move_alert(alert_id: str, answer: Answer, house: HouseOf, caller: Caller) -> Alert:
    """``false-alarm`` closes it and says that nothing had changed."""
    return answer_alert(house, AlertId(alert_id), answer, caller)
