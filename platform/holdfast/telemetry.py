"""Logs as JSON lines on standard error, and what the worker counts.

Units are in the names, counters end in `_total`, and no label grows without bound.
"""

from __future__ import annotations

import logging
import sys

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

WORKER = CollectorRegistry()
"""What the worker counts. It has no port: the text is written into the home's `run/`, where the API's `/metrics` finds it. What the
gateway counts is declared in `holdfast.serving.metrics`."""
JOBS = Counter(
    "holdfast_jobs_total", "Jobs by result: ok, failed, or skipped as the one before still ran.", ["job", "result"], registry=WORKER
)
JOB_SECONDS = Histogram(
    "holdfast_job_duration_seconds", "Duration of a job.", ["job"], buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300), registry=WORKER
)
OLDEST_DUE_SECONDS = Gauge("holdfast_oldest_due_seconds", "How long the oldest due retraining has waited.", registry=WORKER)
CAPTURES_MISSING = Gauge(
    "holdfast_captures_missing",
    "Captures that gateways accepted and that are not in the log: lost, or set aside as unreadable.",
    registry=WORKER,
)
LAST_SWEEP = Gauge(
    "holdfast_last_sweep_timestamp_seconds", "When the newest sweep ended; a worker whose sweep stands still is stuck.", registry=WORKER
)


def worker_text() -> str:
    """All that the worker counts, in Prometheus' text format."""
    return generate_latest(WORKER).decode()


def configure(process: str, *, level: int = logging.INFO) -> None:
    """Send structlog and the standard library's logs as JSON lines to standard error, each with the process's name. Call once, at start."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, _named(process), structlog.processors.JSONRenderer(ensure_ascii=False, default=str)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    plain = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, _named(process)],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(plain)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))  # libraries speak when something is wrong; what the house does, it says itself


def _named(process: str) -> structlog.typing.Processor:
    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("process", process)
        return event

    return add
