"""Trials: a challenger beside the champion, in shadow or as a canary."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from holdfast.api.dependencies import Caller, HouseOf, IfMatch, agreed
from holdfast.api.failures import documented
from holdfast.api.promotions import Generation, Reason
from holdfast.api.tasks import TaskPath
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.routing import Assignment
from holdfast.flows import trial

router = APIRouter(prefix="/tasks/{task}/trial", tags=["trials"])


class TrialWanted(BaseModel):
    """A version to put on trial."""

    model_config = ConfigDict(extra="forbid")
    adapter_digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    share_canary: Annotated[float, Field(ge=0.0, le=1.0, description="Share of traffic that it answers; needs a passing verdict.")] = 0.0
    shadow: Annotated[bool, Field(description="Whether it gets copies of what the champion answers; nobody gets its answers.")] = False
    reason: Reason
    expected_generation: Generation | None = None


@router.put("", summary="Put a challenger on trial", responses=documented(404, 409))
def put_trial(task: TaskPath, wanted: TrialWanted, *, house: HouseOf, caller: Caller, if_match: IfMatch, response: Response) -> Assignment:
    """In place of whatever is on trial; it takes effect once every replica holds the version."""
    begun = trial.begin_trial(
        house, TaskName(task), digest=AdapterDigest(wanted.adapter_digest), share_canary=wanted.share_canary, shadow=wanted.shadow,
        actor=caller, reason=wanted.reason, expected_generation=agreed("If-Match", if_match, wanted.expected_generation),
    )  # fmt: skip
    response.headers["ETag"] = f'"{begun.generation}"'
    return begun


@router.delete("", summary="End the trial", responses=documented(404, 409))
def delete_trial(
    task: TaskPath, reason: Annotated[str, Query(min_length=1, max_length=500)], *, house: HouseOf, caller: Caller, if_match: IfMatch,
    response: Response,
) -> Assignment:  # fmt: skip
    """The champion answers alone."""
    expected = agreed("If-Match", if_match, None)
    ended = trial.end_trial(house, TaskName(task), actor=caller, reason=reason, expected_generation=expected)
    response.headers["ETag"] = f'"{ended.generation}"'
    return ended
