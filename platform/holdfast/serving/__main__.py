"""The gateway as a process: ``python -m holdfast.serving``."""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict

from holdfast import bootstrap
from holdfast.flows.record import record_captures, record_feedback
from holdfast.serving.batching import Batcher
from holdfast.serving.capture_buffer import CaptureBuffer
from holdfast.serving.connection import Connection, Fleet
from holdfast.serving.gateway import GatewayState, make_app
from holdfast.serving.http_server import make_server
from holdfast.serving.label_buffer import LabelBuffer
from holdfast.serving.listening import addresses, listen
from holdfast.serving.metrics import GatewayMetrics
from holdfast.serving.result_cache import ResultCache
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
    connection = Connection(fleet, {"settings": settings.model_dump_json()})
    state = make_state(settings, connection, capture=capture)
    watch(state)
    sys.setswitchinterval(SWITCH_S)
    spools = [spool for spool in (state.buffer, state.labels) if spool is not None]

    @contextlib.asynccontextmanager
    async def life() -> AsyncIterator[None]:
        state.feed.start()
        for spool in spools:
            spool.start()
        try:
            async with connection.kept():
                yield
        finally:
            state.feed.close()
            for spool in spools:
                spool.close()

    log.info("gateway %d listens at %s", number, addresses(sockets))
    server, guard = make_server(make_app(state, life), settings, state.draining)
    state.metrics.watch("holdfast_connections", "Open connections.", lambda: guard.open_count)
    state.metrics.count("holdfast_connections_closed", "Connections closed here.", guard.closed_counts)
    server.run(sockets=sockets)


def make_state(settings: Settings, connection: Connection, *, capture: bool = True) -> GatewayState:
    """The parts of a gateway, none of them started."""
    parts, serving = bootstrap.for_gateway(settings), settings.serving
    feed = RoutingFeed(
        parts.unit_of_work, refresh_s=serving.refresh_s, bases=bootstrap.base_digests(settings),
        silence_s=settings.loop.replica_silence_s, clock=parts.clock,
    )  # fmt: skip
    spool = settings.folder / "spool"
    buffer = CaptureBuffer(
        spool, functools.partial(record_captures, parts.log), segment_rows=serving.spool_segment_rows, limit_bytes=serving.spool_mib << 20
    )
    labels = LabelBuffer(
        settings.label_spool, functools.partial(record_feedback, parts.unit_of_work, parts.log), parts.clock,
        limit_bytes=serving.feedback_mib << 20, wait_s=serving.feedback_wait_s,
    )  # fmt: skip
    replica_count = max(serving.replica_count, serving.replica_count_max)
    batcher = Batcher(
        connection.ask,
        batch_rows=serving.batch_rows,
        queue_rows=serving.queue_rows,
        lanes=replica_count * bootstrap.passes(settings),  # one more on its way would leave before it has company (decision 0018)
        task_queue_rows=serving.task_queue_rows,
        task_rows=serving.task_rows * replica_count,
    )
    return GatewayState(
        feed=feed, batcher=batcher, buffer=buffer if capture else None, labels=labels if capture else None, clock=parts.clock,
        metrics=GatewayMetrics(), deadline_s=serving.deadline_s, ready=lambda: not_ready(connection, feed),
        cache=ResultCache(int(serving.cache_mib * (1 << 20))), body_s=serving.body_s,
    )  # fmt: skip


def not_ready(connection: Connection, feed: RoutingFeed) -> str | None:
    """Why the gateway is not ready; None when it is. A database that fails later does not make it unready."""
    if feed.failing is not None and not feed.generation:
        return f"the routing table was not read yet: {feed.failing}"
    return connection.reason


def watch(state: GatewayState) -> None:
    """Gauges over what the parts count themselves."""
    metrics, buffer, labels, batcher, cache = state.metrics, state.buffer, state.labels, state.batcher, state.cache
    metrics.watch("holdfast_routing_generation", "Generation of the routing table in force.", lambda: state.feed.generation)
    metrics.watch("holdfast_queue_rows", "Texts that wait for a micro-batch.", lambda: batcher.waiting_count)
    metrics.count("holdfast_batches", "Micro-batches.", lambda: {"answered": batcher.batch_count, "asked again": batcher.retry_count})
    metrics.count("holdfast_result_cache", "Look-ups in the result cache.", lambda: {"hit": cache.hit_count, "miss": cache.miss_count})
    metrics.watch("holdfast_result_cache_bytes", "Estimated bytes of the result cache.", lambda: cache.byte_count)
    if buffer is not None:
        metrics.count("holdfast_captures", "Captures.", lambda: asdict(buffer.counts))
        metrics.watch("holdfast_spool_segments_waiting", "Spool segments that wait for the log.", lambda: buffer.waiting_count)
        metrics.watch("holdfast_spool_bytes", "Bytes of captures that wait for the log.", lambda: buffer.waiting_bytes)
    if labels is not None:
        metrics.count("holdfast_feedback", "Labels given at the gateway.", lambda: asdict(labels.counts))
        metrics.watch("holdfast_feedback_bytes", "Bytes of labels that wait for their captures.", lambda: labels.waiting_bytes)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    _parser = argparse.ArgumentParser(description="A gateway of a home.")
    _parser.add_argument("--number", type=int, default=1, help="Which of several gateways this is, from 1.")
    _settings = read_settings()
    serve(_settings, bootstrap.fleet(_settings), number=_parser.parse_args().number)
