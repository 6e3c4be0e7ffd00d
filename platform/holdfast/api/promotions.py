"""Promotions and rollbacks: who becomes champion."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from holdfast.api.dependencies import Caller, HouseOf, IfMatch, agreed
from holdfast.api.failures import documented
from holdfast.api.tasks import TaskPath
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.promotions import Promotion
from holdfast.flows import promote

router = APIRouter(prefix="/tasks/{task}", tags=["promotions"])
Reason = Annotated[str, Field(min_length=1, max_length=500)]
Generation = Annotated[int, Field(ge=0)]


class PromotionWanted(BaseModel):
    """A version to make champion."""

    model_config = ConfigDict(extra="forbid")
    adapter_digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    reason: Reason
    expected_generation: Generation | None = None


class RollbackWanted(BaseModel):
    """A move back to the previous champion."""

    model_config = ConfigDict(extra="forbid")
    reason: Reason
    expected_generation: Generation | None = None


@router.get("/promotions", summary="Promotions and rollbacks of a task, newest first", responses=documented(404))
def list_promotions(task: TaskPath, house: HouseOf, response: Response) -> list[Promotion]:
    """The entity tag is the generation of the assignment, for ``If-Match``."""
    with house.unit_of_work() as work:
        work.contracts.get(TaskName(task))
        assignment = work.assignments.get(TaskName(task))
        response.headers["ETag"] = f'"{assignment.generation if assignment else 0}"'
        return list(work.promotions.of_task(TaskName(task)))


@router.post("/promotions", status_code=201, summary="Promote a version that passed its gate", responses=documented(404, 409))
def make_promotion(
    task: TaskPath, wanted: PromotionWanted, *, house: HouseOf, caller: Caller, if_match: IfMatch, response: Response
) -> Promotion:
    """409 with code ``gate_refused`` without a passing verdict, ``stale_generation`` when the champion moved meanwhile."""
    expected = agreed("If-Match", if_match, wanted.expected_generation)
    made = promote.promote(
        house, TaskName(task), digest=AdapterDigest(wanted.adapter_digest), actor=caller, reason=wanted.reason, expected_generation=expected
    )
    response.headers["ETag"] = f'"{made.generation}"'
    return made


@router.post("/rollbacks", status_code=201, summary="Make the previous champion champion again", responses=documented(404, 409))
def make_rollback(
    task: TaskPath, wanted: RollbackWanted, *, house: HouseOf, caller: Caller, if_match: IfMatch, response: Response
) -> Promotion:
    """The previous champion is still loaded, so this takes effect at once."""
    expected = agreed("If-Match", if_match, wanted.expected_generation)
    made = promote.roll_back(house, TaskName(task), actor=caller, reason=wanted.reason, expected_generation=expected)
    response.headers["ETag"] = f'"{made.generation}"'
    return made
