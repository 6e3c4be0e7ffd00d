"""Tasks: their contracts, and how each stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Body, Response
from fastapi import Path as PathParam

from holdfast.api.dependencies import Caller, HouseOf, SettingsOf
from holdfast.api.failures import documented
from holdfast.api.series import RecentQuality
from holdfast.api.standing import Standing, TaskFacts, facts_of, standing_of
from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.alerts import Alert
from holdfast.domain.ids import TaskName
from holdfast.domain.monitors import MonitorReading
from holdfast.domain.records import digest_of
from holdfast.domain.retraining import Retraining
from holdfast.domain.routing import Assignment
from holdfast.domain.tasks import TaskContract, parse_contract
from holdfast.errors import AlreadyExists, ContractInvalid, Problem
from holdfast.ports import House

router = APIRouter(prefix="/tasks", tags=["tasks"])
TaskPath = Annotated[str, PathParam(description="Name of the task.", max_length=63)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """How one task stands."""

    contract: TaskContract
    assignment: Assignment | None
    live_generation: int | None
    """Generation that the data plane follows; behind the assignment while a version warms."""
    champion: AdapterVersion | None
    monitors: tuple[MonitorReading, ...]
    quality: RecentQuality
    """Of the champion, on its newest labelled captures."""
    capture_count: int
    label_count: int
    alerts: tuple[Alert, ...]
    """Open or acknowledged, newest first."""
    retraining: Retraining | None
    """The one under way."""
    standing: Standing


def task_view(house: House, facts: TaskFacts, silence_s: float) -> TaskView:
    """The view of the facts of a task."""
    return TaskView(
        contract=facts.contract,
        assignment=facts.assignment,
        live_generation=facts.route.generation if facts.route else None,
        champion=facts.champion,
        monitors=facts.monitors.readings if facts.monitors else (),
        quality=facts.quality,
        capture_count=facts.capture_count,
        label_count=facts.label_count,
        alerts=facts.open_alerts,
        retraining=facts.running,
        standing=standing_of(facts, house.clock(), silence_s=silence_s),
    )


@router.get("", summary="Contracts of all tasks, by name")
def list_tasks(house: HouseOf) -> list[TaskContract]:
    """The newest contract of each task."""
    with house.unit_of_work() as work:
        return list(work.contracts.all())


@router.post("", status_code=201, summary="Create a task from its contract", responses=documented(409))
def create_task(
    contract: Annotated[dict[str, object], Body(description="The contract as in its YAML file.")],
    house: HouseOf,
    caller: Caller,
    response: Response,
    replace: bool = False,
) -> TaskContract:
    """The same contract again is no change (200). Another contract of a task that exists needs ``replace=true``."""
    parsed = parse_contract(contract, source="sent")
    _check_base(parsed, house.base_digests)
    with house.unit_of_work() as work:
        known = {c.task: c for c in work.contracts.all()}
        before = known.get(parsed.task)
        if before == parsed:
            response.status_code = 200
            return parsed
        if before is not None and not replace:
            raise AlreadyExists(kind="task", name=parsed.task)
        work.contracts.put(parsed, house.clock())
        kind = "task.created" if before is None else "contract.changed"
        body = {"contract": digest_of(parsed), "before": digest_of(before) if before else None}
        work.ledger.append(at=house.clock(), kind=kind, task=parsed.task, actor=caller, body=body)
        work.commit()
    return parsed


@router.get("/{task}", summary="How a task stands", responses=documented(404))
def show_task(task: TaskPath, house: HouseOf, settings: SettingsOf, response: Response) -> TaskView:
    """The entity tag is the generation of the assignment, for ``If-Match`` on a promotion."""
    view = task_view(house, facts_of(house, TaskName(task)), settings.loop.replica_silence_s)
    response.headers["ETag"] = f'"{view.assignment.generation if view.assignment else 0}"'
    return view


def _check_base(contract: TaskContract, bases: Mapping[str, str]) -> None:
    if contract.base not in bases:
        known = ", ".join(sorted(bases)) or "none is installed"
        raise ContractInvalid(source="sent", problems=[Problem("base", f"{contract.base!r} is not a base of this installation ({known})")])
