"""Drift reports."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from holdfast.api.dependencies import HouseOf
from holdfast.api.failures import documented
from holdfast.api.tasks import TaskPath
from holdfast.domain.drift import DriftReport
from holdfast.domain.ids import TaskName

router = APIRouter(prefix="/tasks/{task}/reports", tags=["reports"])


@router.get("", summary="Drift reports of a task, newest first", responses=documented(404))
def list_reports(task: TaskPath, house: HouseOf, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[DriftReport]:
    """The page of a report opens in the console under ``/tasks/{task}/reports/{report_id}``."""
    with house.unit_of_work() as work:
        work.contracts.get(TaskName(task))
        return list(work.reports.of_task(TaskName(task), limit))
