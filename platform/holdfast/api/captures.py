"""Captures: what was asked and what was answered, for reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from holdfast.api.dependencies import HouseOf
from holdfast.api.failures import documented
from holdfast.api.tasks import TaskPath
from holdfast.domain.captures import Capture, Prediction
from holdfast.domain.ids import TaskName

router = APIRouter(prefix="/tasks/{task}/captures", tags=["captures"])


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureView:
    """A capture without its embedding."""

    seq: int
    capture_id: str
    task: str
    text: str
    prediction: Prediction
    adapter_digest: str
    generation: int
    route: str
    captured_at: datetime
    latency_ms: float
    slices: Mapping[str, str]


def capture_view(capture: Capture) -> CaptureView:
    """The readable part of a capture."""
    return CaptureView(
        seq=capture.seq,
        capture_id=capture.capture_id,
        task=capture.task,
        text=capture.text,
        prediction=capture.prediction,
        adapter_digest=capture.adapter_digest,
        generation=capture.generation,
        route=capture.route,
        captured_at=capture.captured_at,
        latency_ms=capture.latency_ms,
        slices=capture.slices,
    )


@router.get("", summary="Captures of a task, in order", responses=documented(404))
def list_captures(
    task: TaskPath,
    house: HouseOf,
    after: Annotated[int | None, Query(ge=0, description="Those with a higher seq; absent means the newest.")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> list[CaptureView]:
    """Page on with ``after`` = the last ``seq``."""
    name = TaskName(task)
    with house.unit_of_work() as work:
        work.contracts.get(name)
    found = house.log.newest(name, limit) if after is None else house.log.after(name, after, limit)
    return [capture_view(capture) for capture in found]
