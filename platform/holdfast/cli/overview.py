"""How a home stands, read from its own files and database, so that it can be told when nothing answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from holdfast.bootstrap import home as bootstrap_home
from holdfast.cli.replicas import ReplicaLine, replica_lines, replica_troubles
from holdfast.cli.run_files import ChildStatus, is_locked, read_status
from holdfast.domain.retraining import ENDED, Retraining
from holdfast.errors import HoldfastError
from holdfast.ports import UnitOfWork
from holdfast.settings import Settings

OVERDUE = timedelta(seconds=60)
"""A job that was due for so long says that nobody works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLine:
    """One task in one line."""

    task: str
    champion: str | None
    generation: int | None
    open_alerts: int
    retraining: str | None
    """State of the one under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Processes, work and tasks of a home, and what is wrong with it."""

    home: str
    state: str
    supervisor_pid: int | None
    children: tuple[ChildStatus, ...]
    oldest_due_job: str | None
    oldest_due_at: datetime | None
    replicas: tuple[ReplicaLine, ...]
    """Those that reported lately; none of a home that does not run."""
    labels_unmatched: int
    """Labels that waited in vain for a capture of their id; at least so many, for the file that keeps them is bounded."""
    labels_refused: int
    """Labels that fitted no capture: of another task, or no answer of it."""
    tasks: tuple[TaskLine, ...]
    troubles: tuple[str, ...]


def overview(settings: Settings) -> Overview:
    """The overview of a home, running or not."""
    status, held = read_status(settings.folder / "run"), is_locked(settings.folder)
    due: Retraining | None = None
    tasks: tuple[TaskLine, ...] = ()
    replicas: tuple[ReplicaLine, ...] = ()
    troubles: list[str] = []
    if not held:
        killed = status is not None and status.state not in ("stopped", "stopping")
        troubles.append(
            "the supervisor was killed; `holdfast up` cleans up and starts anew" if killed else "it does not run; `holdfast up` starts it"
        )
    children = status.children if status else ()
    if held:
        troubles += [f"{c.name} is {c.state}; see {c.log}" for c in children if c.state != "ready"]
    try:
        with bootstrap_home.open_database(settings) as unit:
            due, tasks = _oldest_due(unit), _tasks(unit)
            replicas = replica_lines(unit, settings) if held else ()
    except HoldfastError as error:
        troubles.append(error.message)
    if held and all(c.state == "ready" for c in children):  # while a process starts, that is the trouble
        troubles += replica_troubles(replicas, settings)
    if held and due is not None and datetime.now(UTC) - due.due_at > OVERDUE:
        troubles.append(f"retraining {due.retraining_id} of {due.task} is due since {due.due_at:%H:%M:%S} UTC and nobody works on it")
    state = status.state if status and held else "stopped"
    return Overview(
        home=str(settings.folder), state=state, supervisor_pid=status.pid if status and held else None, children=children if held else (),
        oldest_due_job=due.retraining_id if due else None, oldest_due_at=due.due_at if due else None,
        labels_unmatched=_lines(settings.label_spool / "unmatched.txt"), labels_refused=_lines(settings.label_spool / "refused.txt"),
        replicas=replicas, tasks=tasks, troubles=tuple(troubles),
    )  # fmt: skip


def _lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return 0


def _oldest_due(unit: UnitOfWork) -> Retraining | None:
    return next(iter(unit.retrainings.due(datetime.now(UTC))), None)


def _tasks(unit: UnitOfWork) -> tuple[TaskLine, ...]:
    assignments, alerts = unit.assignments.all(), unit.alerts.unresolved()
    lines = []
    for contract in unit.contracts.all():
        running = [r for r in unit.retrainings.of_task(contract.task) if r.state not in ENDED]
        assignment = assignments.get(contract.task)
        lines.append(
            TaskLine(
                task=contract.task,
                champion=assignment.champion if assignment else None,
                generation=assignment.generation if assignment else None,
                open_alerts=sum(a.task == contract.task for a in alerts),
                retraining=running[0].state if running else None,
            )
        )
    return tuple(lines)
