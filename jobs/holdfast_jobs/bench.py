"""What every job works with, and how one is run: never twice at once, never in silence, and never to the worker's harm."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from holdfast.errors import HoldfastError
from holdfast.ports import House
from holdfast.settings import Settings
from holdfast.telemetry import JOB_SECONDS, JOBS

log = structlog.get_logger(__name__)


def owner_name() -> str:
    """Names this process among all that ever hold a lease: host, process id, and a part that no later process repeats."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@dataclass(slots=True, kw_only=True, eq=False)
class Bench:
    """One worker process."""

    house: House
    settings: Settings
    owner: str = field(default_factory=owner_name)
    _running: dict[tuple[str, ...], threading.Lock] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def lock_for(self, *key: str) -> threading.Lock:
        """The lock of one kind of work in this process; the same key gives the same lock."""
        with self._guard:
            return self._running.setdefault(key, threading.Lock())


Body = Callable[..., None]


def perform(bench: Bench, name: str, body: Body, ids: tuple[str, ...], *, one_at_a_time: bool = False) -> str:
    """Run a job unless the one before it of the same kind and ids still runs; `ok`, `failed` or `skipped`.

    Args:
        bench: what it works with.
        name: of the job.
        body: called with the bench and the ids.
        ids: its whole arguments.
        one_at_a_time: whether jobs of this kind exclude one another whatever their ids; for heavy ones.

    A failure is one clear line and no more: every job is rung again, by the next tick or by the sweep, and starts from rows.
    """
    lock = bench.lock_for(name, *(() if one_at_a_time else ids))
    if not lock.acquire(blocking=False):
        JOBS.labels(name, "skipped").inc()
        return "skipped"
    started, result = time.monotonic(), "ok"
    try:
        body(bench, *ids)
    except HoldfastError as error:
        result = "failed"
        log.warning("job.failed", job=name, ids=ids, code=error.code, error=error.message)
    except Exception as error:  # a job is the edge of the process: nothing may pass it, or Celery would only print it twice
        result = "failed"
        log.error("job.failed", job=name, ids=ids, error=f"{type(error).__name__}: {error}", exc_info=True)
    finally:
        lock.release()
    JOBS.labels(name, result).inc()
    JOB_SECONDS.labels(name).observe(time.monotonic() - started)
    return result
