"""Adapter versions of a task."""

from __future__ import annotations

from fastapi import APIRouter

from holdfast.api.dependencies import HouseOf
from holdfast.api.failures import documented
from holdfast.api.tasks import TaskPath
from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.ids import TaskName

router = APIRouter(prefix="/tasks/{task}/versions", tags=["versions"])


@router.get("", summary="Adapter versions of a task, by number", responses=documented(404))
def list_versions(task: TaskPath, house: HouseOf) -> list[AdapterVersion]:
    """With lineage, and the MLflow run and version once they are registered."""
    with house.unit_of_work() as work:
        work.contracts.get(TaskName(task))
        return list(work.versions.of_task(TaskName(task)))
