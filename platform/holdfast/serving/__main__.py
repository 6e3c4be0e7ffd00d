"""The gateway as a process: ``python -m holdfast.serving``."""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict

import uvicorn

from holdfast import bootstrap
from holdfast.flows.record import record_captures
from holdfast.serving.batching import Batcher
from holdfast.serving.capture_buffer import CaptureBuffer
from holdfast.serving.connection import Connection, Fleet
from holdfast.serving.gateway import GatewayState, make_app
from holdfast.serving.listening import BACKLOG, addresses, listen
from holdfast.serving.metrics import GatewayMetrics
from holdfast.serving.routing_feed import RoutingFeed
from holdfast.settings import Settings, read_settings

log = logging.getLogger("holdfast.serving")
SWITCH_S = 0.0005
"""The thread that stores captures gives way after so long; at Python's 5 ms every answer would wait for it."""


def serve(settings: Settings, fleet: Fleet, *, number: int = 1, capture: bool = True) -> None:
    """Serve until the process is told to end, as gateway ``number`` of ``settings.serving.gateway_count``.

    Without ``capture`` nothing is recorded: for benches only.
    """
    sockets = listen(settings, number)
    parts = bootstrap.for_gateway(settings)
    connection = Connection(fleet, {"settings": settings.model_dump_json()})
    feed = RoutingFeed(parts.unit_of_work, refresh_s=settings.serving.refresh_s)
    buffer = CaptureBuffer(
        settings.folder / "spool", functools.partial(record_captures, parts.log), segment_rows=settings.serving.spool_segment_rows
    )
    batcher = Batcher(
        connection.ask,
        batch_rows=settings.serving.batch_rows,
        queue_rows=settings.serving.queue_rows,
        # one that is answered per replica, and one on its way
        lanes=max(settings.serving.replica_count, settings.serving.replica_count_max) + 1,
    )
    state = GatewayState(
        feed=feed, batcher=batcher, buffer=buffer if capture else None, clock=parts.clock, metrics=GatewayMetrics(),
        deadline_s=settings.serving.deadline_s, ready=lambda: not_ready(connection, feed),
    )  # fmt: skip
    watch(state)
    sys.setswitchinterval(SWITCH_S)

    @contextlib.asynccontextmanager
    async def life() -> AsyncIterator[None]:
        feed.start()
        buffer.start()
        try:
            async with connection.kept():
                yield
        finally:
            feed.close()
            buffer.close()

    log.info("gateway %d listens at %s", number, addresses(sockets))
    config = uvicorn.Config(make_app(state, life), log_level="warning", access_log=False, backlog=BACKLOG)
    uvicorn.Server(config).run(sockets=sockets)


def not_ready(connection: Connection, feed: RoutingFeed) -> str | None:
    """Why the gateway is not ready; None when it is. A database that fails later does not make it unready."""
    if feed.failing is not None and not feed.generation:
        return f"the routing table was not read yet: {feed.failing}"
    return connection.reason


def watch(state: GatewayState) -> None:
    """Gauges over what the parts count themselves."""
    metrics, buffer, batcher = state.metrics, state.buffer, state.batcher
    metrics.watch("holdfast_routing_generation", "Generation of the routing table in force.", lambda: state.feed.generation)
    metrics.watch("holdfast_queue_rows", "Texts that wait for a micro-batch.", lambda: batcher.waiting_count)
    metrics.count("holdfast_batches", "Micro-batches.", lambda: {"answered": batcher.batch_count, "asked again": batcher.retry_count})
    if buffer is not None:
        metrics.count("holdfast_captures", "Captures.", lambda: asdict(buffer.counts))
        metrics.watch("holdfast_spool_segments_waiting", "Spool segments that wait for the log.", lambda: buffer.waiting_count)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    _parser = argparse.ArgumentParser(description="A gateway of a home.")
    _parser.add_argument("--number", type=int, default=1, help="Which of several gateways this is, from 1.")
    _settings = read_settings()
    serve(_settings, bootstrap.fleet(_settings), number=_parser.parse_args().number)
