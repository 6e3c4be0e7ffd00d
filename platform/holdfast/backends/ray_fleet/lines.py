"""The gateway's end: a line to each replica it heard of, and which of them is asked."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
import os
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from holdfast.backends.ray_fleet.frames import GATEWAY, NONCE_BYTES, REPLICA, Frames, pack, proof, unpack
from holdfast.backends.ray_fleet.listener import LEAVING
from holdfast.errors import PartUnavailable

log = logging.getLogger("holdfast.serving")
NEVER = float("-inf")
OPEN_S = 1.0
"""Longest that opening a line takes: whoever keeps the connection to Ray waits for it, and tries again soon."""


class Line(Frames):
    """A connection to one replica. Several micro-batches may be under way; answers come in any order."""

    def __init__(self, replica: str, token: bytes, gone: Callable[[Line], None]) -> None:
        super().__init__()
        self.replica = replica
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the replica proved itself; fails with PartUnavailable."""
        self.question_count = 0
        """Questions that wait for their answers."""
        self.asked_at = NEVER
        self.suspect = False
        """A micro-batch was given up; true until anything comes."""
        self.usable = False
        self._token, self._gone = token, gone
        self._nonce = os.urandom(NONCE_BYTES)
        self._theirs = b""
        self._numbers = itertools.count(LEAVING + 1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, questions: Sequence[tuple[str, str]]) -> Any:
        """One answer for each. Raises PartUnavailable when the line broke or the replica failed; giving up a wait makes it suspect."""
        number = next(self._numbers)
        answered = self._waiting[number] = asyncio.get_running_loop().create_future()
        self.question_count += len(questions)
        self.asked_at = time.monotonic()
        try:
            self.send(pack((number, questions)))
            return await answered
        except asyncio.CancelledError:
            self.suspect = True
            raise
        finally:
            self.question_count -= len(questions)
            del self._waiting[number]

    def received(self, payload: bytes) -> None:
        """The proof first, then answers."""
        self.suspect = False
        if not self.usable and not self.ready.done():
            self._prove(payload)
            return
        try:
            number, *answers = unpack(payload)
        except (ValueError, TypeError):
            self.cut()
            return
        if number == LEAVING:
            self.usable = False
            self._gone(self)
            return
        answered = self._waiting.get(number)
        if answered is None or answered.done():
            return
        if len(answers) == 1:
            answered.set_result(answers[0])
        else:
            answered.set_exception(PartUnavailable(part="replica", reason=str(answers[-1])))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        self.usable = False
        lost = PartUnavailable(part="replica", reason="its connection broke")
        for one in (self.ready, *self._waiting.values()):
            if not one.done():
                one.set_exception(lost)
        self._gone(self)

    def _prove(self, payload: bytes) -> None:
        if not self._theirs:
            self._theirs = payload
            self.send(self._nonce + proof(self._token, GATEWAY, payload, self._nonce))
        elif hmac.compare_digest(payload, proof(self._token, REPLICA, self._nonce, self._theirs)):
            self.usable = True
            self.proved()
            self.ready.set_result(None)
        else:
            self.cut()


class Lines:
    """The lines of one gateway. Belongs to its loop."""

    def __init__(self, token: Callable[[], bytes]) -> None:
        self._token = token
        self._lines: dict[str, Line] = {}
        self._told: set[str] = set()
        """Replicas to which a line could not be opened, of which the log has heard."""

    def __len__(self) -> int:
        return len(self._lines)

    def best(self, avoid: Collection[str] = ()) -> Line | None:
        """The line on which the fewest questions wait, of equals the one asked longest ago; None when there is none to be trusted.

        One that a micro-batch was given up on is not. Where all that can be trusted are to be avoided, any of them will do.
        """
        trusted = [line for line in self._lines.values() if line.usable and not line.suspect]
        others = [line for line in trusted if line.replica not in avoid] or trusted
        return min(others, key=lambda line: (line.question_count, line.asked_at), default=None)

    async def open(self, replica: str, host: str, port: int) -> None:
        """Make sure of a line to this replica. Whoever cannot prove to hold the token gets none. Never raises but CancelledError."""
        if replica in self._lines:
            return
        line = Line(replica, self._token(), self._forget)
        self._lines[replica] = line
        try:
            async with asyncio.timeout(OPEN_S):
                await asyncio.get_running_loop().create_connection(lambda: line, host, port)
                await line.ready
        except (OSError, TimeoutError, PartUnavailable) as error:
            if replica not in self._told:
                log.warning(
                    "no line to replica %s at %s:%d, it is asked by Ray's handle: %s", replica, host, port, error or "no proof in time"
                )
                self._told.add(replica)
            line.cut()
            self._forget(line)
        finally:
            line.ready.cancel()

    def close(self) -> None:
        """Cut every line."""
        for line in tuple(self._lines.values()):
            line.cut()

    def _forget(self, line: Line) -> None:
        if self._lines.get(line.replica) is line:
            del self._lines[line.replica]
