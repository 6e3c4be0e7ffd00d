"""`python -m holdfast_jobs`: the worker, with its clock in the same process.

One process, threads and no children, so that `kill -9` leaves neither an orphan nor a worker deaf for want of its pool.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings

import structlog
from celery import Celery
from celery.beat import Scheduler, Service
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging

from holdfast import telemetry
from holdfast.bootstrap import for_messages, for_worker
from holdfast.errors import HoldfastError
from holdfast.settings import read_settings
from holdfast_jobs.app import THREADS, build
from holdfast_jobs.bench import Bench

log = structlog.get_logger(__name__)


@setup_logging.connect
def _leave_logging_alone(**_: object) -> None:
    """Celery sets up no logging of its own where this signal has a receiver."""


def main() -> int:
    """Run until SIGTERM or SIGINT. 0 after a clean stop, 1 when it cannot start or work ended by itself."""
    telemetry.configure("worker")
    settings = read_settings()
    try:
        bench = Bench(house=for_worker(settings), settings=settings)
        return run(build(for_messages(settings), bench), bench)
    except HoldfastError as error:
        log.error("worker.refused", code=error.code, error=error.message, mend=error.mend)
        return 1


def run(app: Celery, bench: Bench) -> int:
    """Work until told to stop; the exit code."""
    warnings.filterwarnings("ignore", category=SecurityWarning)  # it warns root of pickle, which is not accepted here
    threading.Thread(target=_tick_for_ever, args=(app,), name="beat", daemon=True).start()
    log.info("worker.started", owner=bench.owner, home=str(bench.settings.folder))
    worker = app.Worker(
        pool_cls="threads", concurrency=THREADS, optimization="fair", without_gossip=True, without_mingle=True,
        without_heartbeat=True, beat=False, quiet=True, loglevel="WARNING",
    )  # fmt: skip
    worker.start()
    return int(worker.exitcode or 0)


def _tick_for_ever(app: Celery) -> None:
    """Celery beat with its table in memory (the one on disk can be left broken by a kill), begun again should it ever fall over."""
    while True:
        try:
            Service(app, max_interval=1, scheduler_cls=Scheduler).start()
            return
        except Exception as error:
            log.error("beat.failed", error=f"{type(error).__name__}: {error}")
            time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
