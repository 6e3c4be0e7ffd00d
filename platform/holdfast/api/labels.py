"""Labels: ground truth that comes later, by capture id."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from holdfast.api.dependencies import Caller, HouseOf
from holdfast.api.failures import documented
from holdfast.api.given import Given, as_text
from holdfast.api.tasks import TaskPath
from holdfast.domain.captures import Label
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.flows import record

router = APIRouter(prefix="/tasks/{task}/labels", tags=["labels"])


class LabelSent(BaseModel):
    """The right label of one capture."""

    model_config = ConfigDict(extra="forbid")
    capture_id: Annotated[str, Field(min_length=1, max_length=200)]
    value: Given
    source: Annotated[str | None, Field(min_length=1, max_length=120, description="Who says so; the name of the key when absent.")] = None


class LabelsSent(BaseModel):
    """Labels to store: all of them or none."""

    model_config = ConfigDict(extra="forbid")
    labels: Annotated[list[LabelSent], Field(min_length=1, max_length=10_000)]


class LabelsStored(BaseModel):
    """How many were new."""

    stored_count: int
    sent_count: int


@router.post("", status_code=201, summary="Store labels of captures", responses=documented(404))
def add_labels(task: TaskPath, sent: LabelsSent, house: HouseOf, caller: Caller) -> LabelsStored:
    """The same label again is stored once. Whatever is unknown, or no answer of the task's kind, refuses the whole batch."""
    now, name = house.clock(), TaskName(task)
    labels = [
        Label(capture_id=CaptureId(e.capture_id), task=name, value=as_text(e.value), source=e.source or caller, labelled_at=now)
        for e in sent.labels
    ]
    return LabelsStored(stored_count=record.record_labels(house, name, labels), sent_count=len(labels))
