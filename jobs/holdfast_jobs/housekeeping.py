"""The sweep: rings again for all that is due, and says that the worker makes progress."""

from __future__ import annotations

import json

from holdfast.telemetry import CAPTURES_MISSING, LAST_SWEEP, OLDEST_DUE_SECONDS, worker_text
from holdfast_jobs.bench import Bench

PROGRESS = "worker.progress"
"""In the home's `run/`: when the newest sweep ended, and how long the oldest due retraining has waited."""
METRICS = "worker.prom"
"""Beside it: what the worker counts, in Prometheus' text format."""


def sweep(bench: Bench) -> None:
    """Ring for every due retraining: whoever asked for it may have died before ringing, and a ring may have been lost."""
    now = bench.house.clock()
    with bench.house.unit_of_work() as uow:
        due = uow.retrainings.due(now)
    for retraining in due:
        bench.house.doorbell.ring("holdfast.advance_retraining", retraining.retraining_id)
    age_s = max(((now - retraining.due_at).total_seconds() for retraining in due), default=0.0)
    OLDEST_DUE_SECONDS.set(age_s)
    CAPTURES_MISSING.set(sum(producer.missing_count for producer in bench.house.log.producers()))
    LAST_SWEEP.set(now.timestamp())
    progress = {"at": now.isoformat(), "due_count": len(due), "oldest_due_s": round(age_s, 3), "owner": bench.owner}
    _say(bench, PROGRESS, json.dumps(progress) + "\n")
    _say(bench, METRICS, worker_text())


def _say(bench: Bench, name: str, text: str) -> None:
    """Readers see the whole text or the one before."""
    folder = bench.settings.folder / "run"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = folder / f".{name}.draft"
    draft.write_text(text, encoding="utf-8")
    draft.replace(folder / name)
