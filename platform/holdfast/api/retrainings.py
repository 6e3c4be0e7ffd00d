"""Retrainings: ask for one, and see how each stands."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field

from holdfast.api.dependencies import Caller, HouseOf, agreed
from holdfast.api.failures import documented
from holdfast.api.tasks import TaskPath
from holdfast.domain.ids import RetrainingId, TaskName
from holdfast.domain.retraining import Retraining
from holdfast.flows import retrain

router = APIRouter(tags=["retrainings"])
Key = Annotated[str, Field(min_length=1, max_length=200)]


class RetrainingWanted(BaseModel):
    """A training to start."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    idempotency_key: Key | None = None
    anyway: Annotated[bool, Field(description="Start it although an alert says that the inputs come broken; the ledger says so.")] = False


@router.get("/tasks/{task}/retrainings", summary="Retrainings of a task, newest first", responses=documented(404))
def list_retrainings(task: TaskPath, house: HouseOf) -> list[Retraining]:
    """Every attempt, ended ones included."""
    with house.unit_of_work() as work:
        work.contracts.get(TaskName(task))
        return list(work.retrainings.of_task(TaskName(task)))


@router.post("/tasks/{task}/retrainings", status_code=202, summary="Ask for a retraining", responses=documented(404, 409))
def request_retraining(
    task: TaskPath,
    wanted: RetrainingWanted,
    house: HouseOf,
    caller: Caller,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> Retraining:
    """Asking again under the same idempotency key (header or field) returns the same retraining.

    While an alert of the task is an upstream break it is refused (409, `retraining_held`), unless ``anyway``.
    """
    key = agreed("Idempotency-Key", idempotency_key, wanted.idempotency_key)
    return retrain.request(house, TaskName(task), reason=wanted.reason, actor=caller, key=key, anyway=wanted.anyway)


@router.get("/retrainings/{retraining_id}", summary="One retraining", responses=documented(404))
def show_retraining(retraining_id: str, house: HouseOf) -> Retraining:
    """State, progress, rungs, verdict and promotion."""
    with house.unit_of_work() as work:
        return work.retrainings.get(RetrainingId(retraining_id))
