"""HTTP load for servers of any kind: closed-loop clients, and an open loop that counts from the moment a request was meant to leave.

Open loop: arrivals are a Poisson process (seeded), fixed before the step begins; a request that finds every connection busy waits
here, and its wait counts, so that a slow server cannot slow its own measurement (coordinated omission; Tene, "How NOT to measure
latency", 2013).
"""

from __future__ import annotations

import asyncio
import gc
import json
import math
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import httptools
import numpy as np

CONNECTIONS = 64
"""Of the open loop; 64 under way at 50 ms are 1,280 requests/s."""
PATIENCE_S = 10.0


def request_of(path: str, body: object, key: str = "") -> bytes:
    """One request in bytes."""
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n"
    return (head + (f"authorization: Bearer {key}\r\n" if key else "") + "\r\n").encode() + raw


class Line(asyncio.Protocol):
    """A connection that carries one request at a time and tells the status of its answer; 0 when it was cut."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._told: Callable[[int, bytes], None] | None = None
        self._transport: asyncio.Transport | None = None
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._tell(0)

    def on_body(self, part: bytes) -> None:
        """See httptools."""
        self._body.append(part)

    def on_message_complete(self) -> None:
        """See httptools."""
        self._tell(self._parser.get_status_code())

    def ask(self, raw: bytes, told: Callable[[int, bytes], None]) -> None:
        """Send; ``told`` is called once, with status and body."""
        self._told, self._body = told, []
        if self._transport is None or self._transport.is_closing():
            self._tell(0)
        else:
            self._transport.write(raw)

    def close(self) -> None:
        """Cut it."""
        if self._transport is not None:
            self._transport.abort()

    def _tell(self, status: int) -> None:
        told, self._told = self._told, None
        if told is not None:
            if status == 200:
                told(status, b"".join(self._body))
            else:
                asyncio.get_running_loop().call_later(0.01, told, status, b"")  # a server that refuses is not asked in a tight loop


@dataclass
class Load:
    """What clients saw."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0
    body: bytes = b""
    """Of one of the answers."""

    def seen(self, status: int, body: bytes, since: float) -> None:
        """An answer came."""
        if status == 200:
            self.latencies_ms.append((time.perf_counter() - since) * 1e3)
            self.body = body
        else:
            self.failed += 1

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies_ms) / self.seconds

    def percentile(self, share: float) -> float:
        """Of the latencies in ms, a failed request counting as endless; never interpolated."""
        known = [*self.latencies_ms, *[math.inf] * self.failed]
        return float(np.percentile(known, share, method="higher")) if known else math.inf


async def _opened(port: int, count: int) -> list[Line]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Line, "127.0.0.1", port))[1] for _ in range(count)]


def closed_loop(port: int, requests: Sequence[bytes], *, clients: int, count: int) -> Load:
    """``count`` requests by clients that each wait for their answer before they ask again."""

    async def run() -> Load:
        load, left, done = Load(), iter(range(count)), asyncio.Event()
        lines = await _opened(port, clients)
        busy = set(lines)

        def ask(line: Line) -> None:
            number = next(left, None)
            if number is None:
                busy.discard(line)
                if not busy:
                    done.set()
                return
            since = time.perf_counter()

            def told(status: int, body: bytes) -> None:
                load.seen(status, body, since)
                ask(line)

            line.ask(requests[number % len(requests)], told)

        began = time.perf_counter()
        for line in lines:
            ask(line)
        await done.wait()
        load.seconds = time.perf_counter() - began
        for line in lines:
            line.close()
        return load

    return _quietly(run)


def open_loop(port: int, requests: Sequence[bytes], *, rate: float, seconds: float, seed: int) -> Load:
    """Poisson arrivals at ``rate`` for ``seconds``. A step in which a second's worth of requests waits is over: the rest failed."""

    async def run() -> Load:
        load, chance = Load(), random.Random(seed)
        idle, waiting = await _opened(port, CONNECTIONS), deque[tuple[float, bytes]]()
        lines = list(idle)
        began = at = time.perf_counter()
        arrivals = []
        while (at := at + chance.expovariate(rate)) < began + seconds:
            arrivals.append(at)

        def send(due: float, raw: bytes) -> None:
            line = idle.pop()

            def told(status: int, body: bytes) -> None:
                load.seen(status, body, due)
                idle.append(line)
                if waiting:
                    send(*waiting.popleft())

            line.ask(raw, told)

        for number, due in enumerate(arrivals):
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            raw = requests[number % len(requests)]
            if idle:
                send(due, raw)
            else:
                waiting.append((due, raw))
                await asyncio.sleep(0)
            if len(waiting) > max(CONNECTIONS, rate):
                waiting.clear()
                break
        until = time.perf_counter() + PATIENCE_S
        while (waiting or len(idle) < len(lines)) and time.perf_counter() < until:
            await asyncio.sleep(0.005)
        load.seconds = time.perf_counter() - began
        load.failed = len(arrivals) - len(load.latencies_ms)
        for line in lines:
            line.close()
        return load

    return _quietly(run)


def _quietly(run: Callable[[], Coroutine[Any, Any, Load]]) -> Load:
    """Without the collector's pauses, which would be told as the server's."""
    gc.collect()
    gc.disable()
    try:
        return asyncio.run(run())
    finally:
        gc.enable()


class Search:
    """The highest rate at which a step holds its p99: rising until one does not, then halving the ratio between both."""

    def __init__(self, guess: float, *, bound_ms: float, steps: int) -> None:
        self._guess, self._bound_ms, self._left = guess, bound_ms, steps
        self.held = 0.0
        """The highest rate that held."""
        self._failed = math.inf

    def rate(self) -> float | None:
        """Of the next step; None when it is known closely enough (6%)."""
        if not self._left or self._failed / max(self.held, 1e-9) < 1.06 or self._failed < 2:
            return None
        if math.isinf(self._failed):
            return self.held * 1.25 or self._guess
        return math.sqrt(self.held * self._failed) if self.held else self._failed / 1.6

    def told(self, rate: float, load: Load) -> None:
        """How a step went."""
        self._left -= 1
        if load.percentile(99) <= self._bound_ms:
            self.held = max(self.held, rate)
        else:
            self._failed = min(self._failed, rate)
