"""Logs as JSON lines on standard error, and every metric of the house declared once.

Units are in the names, counters end in `_total`, and no label grows without bound: no request id, no adapter digest on a histogram.
"""

from __future__ import annotations

import logging
import sys

import structlog
from prometheus_client import Counter, Gauge, Histogram

LATENCY_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)

REQUESTS = Counter(
    "holdfast_requests_total", "Prediction requests answered, by outcome (ok, or the code of the error).", ["task", "outcome"]
)
REQUEST_SECONDS = Histogram("holdfast_request_duration_seconds", "From body read to answer ready.", ["task"], buckets=LATENCY_S)
BATCH_ROWS = Histogram("holdfast_batch_rows", "Requests that one hop carried.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256))
QUEUE_ROWS = Gauge("holdfast_queue_rows", "Requests that wait for a batch.")
CAPTURES = Counter("holdfast_captures_total", "Captures by what became of them: stored, or refused (disk or database).", ["outcome"])
SPOOL_ROWS = Gauge("holdfast_spool_rows", "Captures accepted and not yet in the log.")
TABLE_GENERATION = Gauge("holdfast_table_generation", "Generation of the routing table this process follows.")

JOBS = Counter("holdfast_jobs_total", "Jobs by result: ok, failed, or skipped because the one before still runs.", ["job", "result"])
JOB_SECONDS = Histogram("holdfast_job_duration_seconds", "Duration of a job.", ["job"], buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300))
OLDEST_DUE_SECONDS = Gauge("holdfast_oldest_due_seconds", "Age of the oldest retraining that is due and that nobody works on.")


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
