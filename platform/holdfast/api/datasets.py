"""Data sets: rows that a person brings, audited before anything is stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from holdfast.api.dependencies import Caller, HouseOf
from holdfast.api.failures import documented
from holdfast.api.given import Given, as_text
from holdfast.api.tasks import TaskPath
from holdfast.domain.audit import Audit, audit, inspect_examples
from holdfast.domain.datasets import DatasetSnapshot, Example
from holdfast.domain.ids import TaskName
from holdfast.domain.labelling import read_answer
from holdfast.domain.tasks import Kind
from holdfast.errors import DataInvalid
from holdfast.flows import freeze

router = APIRouter(prefix="/tasks/{task}/datasets", tags=["datasets"])


class ExampleSent(BaseModel):
    """One text with its right label."""

    model_config = ConfigDict(extra="forbid")
    text: str
    label: Given
    source: Annotated[str, Field(min_length=1, max_length=120, description="Where the row came from.")] = "file"
    place: Annotated[str, Field(max_length=40, description="Where it stands in your file, as `line 3`; named when something is wrong.")] = (
        ""
    )


class DatasetSent(BaseModel):
    """Rows to store as one frozen snapshot; 32 MiB at most."""

    model_config = ConfigDict(extra="forbid")
    examples: list[ExampleSent]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetAdded:
    """What was stored (nothing on a dry run), and what the audit found."""

    snapshot: DatasetSnapshot | None
    audit: Audit


@router.post("", status_code=201, summary="Audit rows and freeze them as a snapshot", responses=documented(404, 413))
def add_dataset(task: TaskPath, sent: DatasetSent, house: HouseOf, caller: Caller, dry_run: bool = False) -> DatasetAdded:
    """With ``dry_run=true`` the audit alone, every mistake included. Otherwise a mistake refuses the whole data set."""
    with house.unit_of_work() as work:
        contract = work.contracts.get(TaskName(task))
    examples = [Example(text=e.text, label=_canonical(contract.kind, e), source=e.source, place=e.place) for e in sent.examples]
    if dry_run:
        return DatasetAdded(snapshot=None, audit=inspect_examples(examples, contract))
    found = audit(examples, contract)
    return DatasetAdded(snapshot=freeze.add_examples(house, TaskName(task), examples, actor=caller), audit=found)


def _canonical(kind: Kind, sent: ExampleSent) -> str:
    """The canonical text; of a label that cannot be read its own text, on which the audit says what is wrong, with the row."""
    given = as_text(sent.label)
    try:
        return given if kind == "classification" else read_answer(kind, given, sent.text, strict=False)
    except DataInvalid:
        return given


@router.get("", summary="Snapshots of a task, newest first", responses=documented(404))
def list_datasets(task: TaskPath, house: HouseOf) -> list[DatasetSnapshot]:
    """Records only; the rows lie in the snapshot store."""
    with house.unit_of_work() as work:
        work.contracts.get(TaskName(task))
        return list(work.snapshots.of_task(TaskName(task)))
