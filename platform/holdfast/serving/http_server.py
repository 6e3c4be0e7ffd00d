"""Uvicorn as the gateway runs it: connections that idle or dawdle cost little and keep nobody out, and an ending that loses nothing.

A server that waits for ever for the rest of a request can be held by a few thousand sockets that send a byte now and then (RFC 7230
asks only that it answers in time). Here a connection has ``header_s`` for the head of its next request, a body has a time of its
own (`Doorkeeper.body`), and above ``limit`` connections the one that idles longest makes room for the newest.
"""

from __future__ import annotations

import asyncio
import functools
import resource
import signal
import socket
from collections.abc import Mapping
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from holdfast.serving.gateway_state import Draining
from holdfast.settings import Settings

HEAD_BYTES = 64 << 10
"""Of the head of a request, beside what may come with it in one read."""
MOST_READ = 256 << 10
FILES_BESIDE = 256
"""Descriptors for what is no connection: database, spool, Ray."""


class Guard:
    """The open connections that wait for the head of a request, the longest idle first."""

    def __init__(self, *, limit: int, header_s: float) -> None:
        self.limit, self.header_s = limit, header_s
        self.open_count = 0
        self.closed_idle_count = 0
        self.closed_slow_count = 0
        self._idle: dict[GuardedProtocol, None] = {}

    def closed_counts(self) -> Mapping[str, float]:
        """Connections given up, by why."""
        return {"idle": self.closed_idle_count, "slow": self.closed_slow_count}

    def idle(self, one: GuardedProtocol) -> None:
        """Begins to wait for a head."""
        self._idle.pop(one, None)
        self._idle[one] = None

    def busy(self, one: GuardedProtocol) -> None:
        """Has a request, or is gone."""
        self._idle.pop(one, None)

    def make_room(self) -> bool:
        """Close the connection that idles longest when there are too many; whether the newest may stay."""
        if self.open_count <= self.limit:
            return True
        if not self._idle:
            return False
        oldest = next(iter(self._idle))
        self.closed_idle_count += 1
        oldest.close_now()
        return True


class GuardedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with a time limit on the head of each request."""

    def __init__(self, guard: Guard, **given: Any) -> None:
        super().__init__(**given)
        self._guard = guard
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A socket opened."""
        super().connection_made(transport)
        self._guard.open_count += 1
        if not self._guard.make_room():
            self.close_now()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """A socket closed."""
        self._guard.open_count -= 1
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came. A head that has no end is not read to its end."""
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES + MOST_READ:
                self._too_slow()
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head of a request is whole."""
        self._head_came()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """A reply is out; the next head may come."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():  # else a pipelined request is under way
            self._await_head()

    def close_now(self) -> None:
        """Give the connection up."""
        self._head_came()
        self.transport.abort()

    def _await_head(self) -> None:
        self._head_came()
        self._head_bytes = 0
        self._guard.idle(self)
        self._head_timer = self.loop.call_later(self._guard.header_s, self._too_slow)

    def _head_came(self) -> None:
        self._guard.busy(self)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._guard.closed_slow_count += 1
        self.close_now()


class Server(uvicorn.Server):
    """Ends in order: unready at once, then (after ``drain_s``) deaf to new connections, then gone when all is answered."""

    def __init__(self, config: uvicorn.Config, draining: Draining, *, drain_s: float) -> None:
        super().__init__(config)
        self._draining, self._drain_s = draining, drain_s
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came; a second one does not wait."""
        again, self._draining.begun = self._draining.begun, True
        if self._drain_s and not again and sig == signal.SIGTERM and self._loop is not None:
            end = functools.partial(super().handle_exit, sig, frame)
            self._loop.call_soon_threadsafe(self._loop.call_later, self._drain_s, end)
        else:
            super().handle_exit(sig, frame)


def make_server(app: ASGIApp, settings: Settings, draining: Draining) -> tuple[Server, Guard]:
    """A server that has not begun, and what it knows of its connections. ``Server.run`` returns when all was answered."""
    serving = settings.serving
    guard = Guard(limit=affordable(serving.connections), header_s=serving.header_s)
    config = uvicorn.Config(
        app, host=settings.host, port=settings.ports.gateway, log_level="warning", access_log=False, backlog=4096, ws="none",
        http=functools.partial(GuardedProtocol, guard),  # type: ignore[arg-type]
        timeout_keep_alive=max(1, int(serving.header_s)), timeout_graceful_shutdown=max(1, int(serving.deadline_s)),
    )  # fmt: skip
    return Server(config, draining, drain_s=serving.gateway_drain_s), guard


def affordable(wanted: int) -> int:
    """As many connections as this process may have descriptors for, after it asked for as many as it may get."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(8, min(wanted, soft - FILES_BESIDE))
