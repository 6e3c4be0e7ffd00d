"""What is rung by the clock. A tick only rings: everything here may come late, twice or never without harm to a result."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from celery.schedules import schedule

from holdfast.settings import Loop

_START = datetime.now(UTC)
_START_S = time.monotonic()


def steady_now() -> datetime:
    """An instant that only goes forward: a machine's clock that is set back must not stop the loop."""
    return _START + timedelta(seconds=time.monotonic() - _START_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One line of the table."""

    job: str
    every_s: float
    reason: str


def ticks(loop: Loop) -> tuple[Tick, ...]:
    """The periodic table."""
    return (
        Tick(job="holdfast.watch_all", every_s=loop.watch_s, reason="captures come without a ring: the data plane knows no broker"),
        Tick(job="holdfast.sweep", every_s=loop.advance_s, reason="rings are lost when a process is killed, and trainings end in silence"),
        Tick(job="holdfast.reconcile_fleet", every_s=loop.reconcile_s, reason="replicas report that a version is warm, and ring nobody"),
        Tick(job="holdfast.mirror_registry", every_s=loop.mirror_s, reason="an alias may be moved by hand, or MLflow be away"),
    )


def beat_schedule(loop: Loop) -> dict[str, dict[str, Any]]:
    """The table in Celery's form. A tick that waited for three periods is dropped: the next says the same."""
    return {
        tick.job: {
            "task": tick.job,
            "schedule": schedule(run_every=timedelta(seconds=tick.every_s), nowfun=steady_now),
            "options": {"expires": max(3 * tick.every_s, 5.0), "retry": False},
        }
        for tick in ticks(loop)
    }
