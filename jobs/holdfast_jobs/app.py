"""The Celery application of the worker: every job under its name, bound to one bench."""

from __future__ import annotations

from collections.abc import Mapping

from celery import Celery

from holdfast_jobs import housekeeping, monitoring, retraining, rollout
from holdfast_jobs.bench import Bench, Body, perform
from holdfast_jobs.schedule import beat_schedule

JOBS: dict[str, Body] = {
    "holdfast.watch_all": monitoring.watch_all,
    "holdfast.watch_task": monitoring.watch_task,
    "holdfast.report_task": monitoring.report_task,
    "holdfast.advance_retraining": retraining.advance_retraining,
    "holdfast.reconcile_fleet": rollout.reconcile_fleet,
    "holdfast.mirror_registry": rollout.mirror_registry,
    "holdfast.sweep": housekeeping.sweep,
}
"""Name to body. A name is a promise to messages under way and to other processes: it is never changed, only added."""
HEAVY = frozenset({"holdfast.report_task"})
"""One of a kind at a time, whatever the task: five CPU seconds each must not take every thread from the watching."""
THREADS = 4
"""Bodies wait for the database and for HTTP; nothing that needs a core for long runs here."""


def build(app: Celery, bench: Bench, jobs: Mapping[str, Body] = JOBS) -> Celery:
    """Bind every job to the bench, and the table of ticks to the application."""
    for name, body in jobs.items():
        _bind(app, bench, name, body)
    app.conf.beat_schedule = beat_schedule(bench.settings.loop)
    app.conf.beat_max_loop_interval = 1.0
    app.finalize()
    return app


def _bind(app: Celery, bench: Bench, name: str, body: Body) -> None:
    @app.task(name=name, ignore_result=True, acks_late=False, typing=False)
    def run(*ids: str) -> None:
        perform(bench, name, body, ids, one_at_a_time=name in HEAVY)
