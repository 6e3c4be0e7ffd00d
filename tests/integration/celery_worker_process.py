"""A worker process for tests: the real application, broker, clock and database; only the step of a retraining is a stand-in.

Run as ``python celery_worker_process.py``, with the home in ``HOLDFAST_HOME``. The step claims the lease and writes `begun`; while the
file `run/hang` exists it then waits for ever, so that a test can kill the worker in the middle; else it ends the retraining.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from holdfast.backends.celery_queue import CeleryDoorbell
from holdfast.backends.sql import SqlDatabase
from holdfast.bootstrap import for_messages
from holdfast.domain.ids import RetrainingId
from holdfast.domain.retraining import LEASE_S
from holdfast.settings import read_settings
from holdfast.testing.builders import a_house
from holdfast_jobs.__main__ import run
from holdfast_jobs.app import JOBS, build
from holdfast_jobs.bench import Bench

SPEED = 20.0
"""The house's clock runs so many times faster, so that a dead worker's lease of 30 s ends in 1.5."""
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def fast_clock() -> datetime:
    """The same instant in every process that asks at the same time."""
    return EPOCH + timedelta(seconds=(time.time() % 1e7) * SPEED)


def step(bench: Bench, retraining_id: str) -> None:
    """See the module."""
    house, folder = bench.house, bench.settings.folder / "run"
    with house.unit_of_work() as uow:
        claimed = uow.retrainings.claim(RetrainingId(retraining_id), owner=bench.owner, now=house.clock(), lease_s=LEASE_S)
        uow.commit()
    if claimed is None:
        return
    with (folder / "steps").open("a") as steps:
        steps.write(f"begun {retraining_id} {claimed.fence}\n")
    if (folder / "hang").exists():
        threading.Event().wait()
    with house.unit_of_work() as uow:
        uow.retrainings.save(dataclasses.replace(claimed, state="refused", ended_at=house.clock(), lease_owner=None, lease_until=None))
        uow.commit()


def open_house(home: Path) -> SqlDatabase:
    """The database of a home."""
    return SqlDatabase(f"sqlite:///{home / 'holdfast.db'}")


def main() -> int:
    """The worker."""
    settings = read_settings()
    database = open_house(settings.folder)
    house = a_house(
        unit_of_work=database.unit_of_work, log=database.log(), clock=fast_clock, doorbell=CeleryDoorbell(settings.folder)
    )  # fmt: skip
    bench = Bench(house=house, settings=settings)
    return run(build(for_messages(settings), bench, {**JOBS, "holdfast.advance_retraining": step}), bench)


if __name__ == "__main__":
    sys.exit(main())
