"""Keeps the gateway joined to the fleet: connects, notices when Ray went away, and connects again, while HTTP goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

from holdfast.errors import PartUnavailable
from holdfast.serving.batching import Answer, Question

log = logging.getLogger("holdfast.serving")
LOOK_S = 0.5
SILENT_S = 20.0
"""After so long without an answer the application is looked at again, and deployed anew if it failed."""


class Fleet(Protocol):
    """Where the replicas are. Connecting and leaving block; asking does not."""

    def alive(self) -> bool: ...
    def connect(self, arguments: dict[str, str]) -> None: ...
    def close(self) -> None: ...
    async def ask(self, questions: Sequence[Question]) -> Sequence[Answer | str]: ...
    async def look(self) -> None: ...


class Connection:
    """The state of the way to the replicas."""

    def __init__(self, fleet: Fleet, arguments: dict[str, str], *, look_s: float = LOOK_S) -> None:
        self._fleet, self._arguments, self._look_s = fleet, arguments, look_s
        self._answered_at = 0.0
        self.reason: str | None = "not connected to Ray yet"
        """Why no replica answers; None when one does."""

    async def ask(self, questions: Sequence[Question]) -> Sequence[Answer | str]:
        """Ask a replica; an answer counts as a sign of life."""
        answers = await self._fleet.ask(questions)
        self._answered_at = time.monotonic()
        return answers

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keep the connection for the length of the block."""
        keeper = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
            await asyncio.to_thread(self._fleet.close)

    async def _keep(self) -> None:
        joined, silent_since = False, time.monotonic()
        while True:
            alive = joined and await asyncio.to_thread(self._fleet.alive)
            if not alive or time.monotonic() - silent_since > SILENT_S:
                joined = await self._join()
                silent_since = time.monotonic()
            if joined:
                self.reason = await self._sign_of_life()
                silent_since = time.monotonic() if self.reason is None else silent_since
                await self._fleet.look()
            await asyncio.sleep(self._look_s)

    async def _join(self) -> bool:
        try:
            with _own_signals():
                return await self._connect()
        except Exception as error:  # whatever it is, the keeper must live on to try again
            reason = error.message if isinstance(error, PartUnavailable) else f"{type(error).__name__}: {error}"[:300]
            if self.reason != reason:
                log.warning("not connected: %s", reason)
            self.reason = reason
            return False

    async def _connect(self) -> bool:
        if not await asyncio.to_thread(self._fleet.alive):
            await asyncio.to_thread(self._fleet.close)
        await asyncio.to_thread(self._fleet.connect, self._arguments)
        return True

    async def _sign_of_life(self) -> str | None:
        """None when a replica answered within the last 2 s or answers now."""
        if time.monotonic() - self._answered_at < 2.0:
            return None
        try:
            async with asyncio.timeout(5.0):
                await self.ask([])
        except (PartUnavailable, TimeoutError) as error:
            return f"no replica answers: {error}"
        return None


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Put the handlers back that Ray's core replaces when it connects: without them SIGTERM ends the process with a stack trace."""
    held = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in held.items():
                if handler is not None:
                    signal.signal(number, handler)
