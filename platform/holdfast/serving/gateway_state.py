"""All that a request needs, and what one request carries through the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from holdfast.domain.routing import Choice
from holdfast.ports import Clock
from holdfast.serving.batching import Batcher
from holdfast.serving.capture_buffer import CaptureBuffer
from holdfast.serving.label_buffer import LabelBuffer
from holdfast.serving.metrics import GatewayMetrics
from holdfast.serving.result_cache import ResultCache
from holdfast.serving.routing_feed import RoutingFeed
from holdfast.serving.trace_context import Trace


@dataclass(slots=True)
class Draining:
    """Whether the process was told to end: it takes no new work and finishes what it has."""

    begun: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayState:
    """The parts of a gateway."""

    feed: RoutingFeed
    batcher: Batcher
    buffer: CaptureBuffer | None
    """None records nothing: for benches only."""
    labels: LabelBuffer | None = None
    """None takes no feedback: where nothing is recorded, nothing can be labelled."""
    clock: Clock
    metrics: GatewayMetrics
    deadline_s: float
    ready: Callable[[], str | None]
    """Why the gateway is not ready; None when it is."""
    cache: ResultCache = field(default_factory=lambda: ResultCache(0))
    body_s: float = 30.0
    """A body that takes longer to arrive is given up."""
    draining: Draining = field(default_factory=Draining)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One HTTP request, once it was admitted."""

    request_id: str
    session: str | None
    """What the canary's share is drawn from, in place of the request id."""
    caller: str
    """Name of the API key."""
    trace: Trace
    deadline: float
    """On the clock of the event loop."""
    started: float = field(default_factory=time.perf_counter)

    def left_s(self) -> float:
        """Seconds until the deadline; at least a millisecond, so that whoever waits finds out himself."""
        return max(0.001, self.deadline - asyncio.get_running_loop().time())

    def elapsed_ms(self) -> float:
        """Since the request was admitted."""
        return round((time.perf_counter() - self.started) * 1e3, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One text of a request."""

    text: str
    request_id: str
    choice: Choice
    slices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answered:
    """One text with its answer."""

    asked: Asked
    label: str
    confidence: float
    parts: tuple[float, ...]
    """Confidence of each label of a set or span of an extraction, in the order of the answer."""
    embedding: bytes
    """[hidden] float16, little endian."""
    tokens: tuple[int, int]
    """Of the whole text, and of what was read of it."""
    base_digest: str | None
    """None when nothing is known of the version here."""
    cached: bool
    latency_ms: float
    capture: str
    """`stored`, `refused` (the disk does not take it) or `none` (not of a kind that is recorded)."""

    @property
    def truncated(self) -> bool:
        """Whether a part of the text was not read."""
        return self.tokens[0] > self.tokens[1]
