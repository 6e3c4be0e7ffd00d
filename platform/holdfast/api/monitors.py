"""Monitors: what each says now."""

from __future__ import annotations

from fastapi import APIRouter

from holdfast.api.dependencies import HouseOf
from holdfast.api.failures import documented
from holdfast.api.tasks import TaskPath
from holdfast.domain.ids import TaskName
from holdfast.domain.monitors import MonitorReading

router = APIRouter(prefix="/tasks/{task}/monitors", tags=["monitors"])


@router.get("", summary="Readings of the champion's monitors", responses=documented(404))
def list_monitors(task: TaskPath, house: HouseOf) -> list[MonitorReading]:
    """Empty when there is no champion, or when nothing has been read yet: unknown, not quiet."""
    with house.unit_of_work() as work:
        work.contracts.get(TaskName(task))
        assignment = work.assignments.get(TaskName(task))
        monitors = work.monitors.get(TaskName(task), assignment.champion) if assignment else None
    return list(monitors.readings) if monitors else []
