"""Assignments: who is champion of each task."""

from __future__ import annotations

from fastapi import APIRouter

from holdfast.api.dependencies import HouseOf
from holdfast.domain.routing import Assignment

router = APIRouter(prefix="/assignments", tags=["assignments"])


@router.get("", summary="Who is champion of each task")
def list_assignments(house: HouseOf) -> list[Assignment]:
    """By task name. This is the intent; ``GET /tasks/{task}`` says what the data plane follows."""
    with house.unit_of_work() as work:
        assignments = work.assignments.all()
    return [assignments[task] for task in sorted(assignments)]
