"""The replica's end of the lines: answers micro-batches of gateways that hold the token, several at a time, and drains at the end."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Awaitable, Callable, Sequence

from holdfast.backends.ray_fleet.frames import GATEWAY, NONCE_BYTES, REPLICA, Frames, pack, proof, unpack

log = logging.getLogger("holdfast.serving")
WireQuestion = tuple[str, str]
Answer = Callable[[Sequence[WireQuestion]], Awaitable[Sequence[object]]]
LEAVING = 0
"""Number of the message that says: ask me nothing more. Questions count from 1."""
MOST_LINES = 256
"""Connections at a time; more are closed at once."""


class Listener:
    """Where gateways call. Everything here belongs to the loop that first asks for the address."""

    def __init__(self, token: Callable[[], bytes], answer: Answer, host: str) -> None:
        """``token`` is read when somebody calls first; ``host`` is the one address that is listened at."""
        self._token, self._answer, self._host = token, answer, host
        self._server: asyncio.Server | None = None
        self._starting = asyncio.Lock()
        self._doors: set[_Door] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        self._leaving = False

    async def address(self) -> tuple[str, int]:
        """Host and port; listening begins with the first call. Raises OSError when it cannot."""
        async with self._starting:
            if self._server is None:
                token = self._token()
                self._server = await asyncio.get_running_loop().create_server(lambda: _Door(self, token), self._host, 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        return str(host), int(port)

    async def drain(self) -> None:
        """Say that no more is wanted, answer what is under way, and close every line."""
        self._leaving = True
        if self._server is not None:
            self._server.close()
        for door in self._doors:
            door.send(pack((LEAVING,)))
        while self._under_way:
            await asyncio.wait(self._under_way)
        for door in tuple(self._doors):
            door.end()

    def came(self, door: _Door) -> None:
        """Somebody called."""
        if self._leaving or len(self._doors) >= MOST_LINES:
            door.cut()
        self._doors.add(door)

    def went(self, door: _Door) -> None:
        """A connection ended."""
        self._doors.discard(door)

    def asked(self, door: _Door, number: int, questions: Sequence[WireQuestion]) -> None:
        """Answer when the engine has; also what was sent before the word that no more is wanted had arrived."""
        task = asyncio.get_running_loop().create_task(self._reply(door, number, questions))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _reply(self, door: _Door, number: int, questions: Sequence[WireQuestion]) -> None:
        try:
            answers = await self._answer(questions)
        except Exception as error:  # whatever it is: the gateway must hear of it, not wait
            log.exception("a micro-batch failed")
            door.send(pack((number, None, f"{type(error).__name__}: {error}"[:200])))
            return
        door.send(pack((number, answers)))


class _Door(Frames):
    """One gateway's connection."""

    def __init__(self, listener: Listener, token: bytes) -> None:
        super().__init__()
        self._listener, self._token = listener, token
        self._nonce = os.urandom(NONCE_BYTES)
        self._known = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        super().connection_made(transport)
        self._listener.came(self)
        self.send(self._nonce)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        self._listener.went(self)

    def received(self, payload: bytes) -> None:
        """The proof first, then questions."""
        if not self._known:
            self._prove(payload)
            return
        try:
            number, questions = unpack(payload)
            fine = isinstance(number, int) and all(isinstance(d, str) and isinstance(t, str) for d, t in questions)
        except (ValueError, TypeError):
            fine = False
        if not fine:
            log.warning("a line is cut: what came is no micro-batch")
            self.cut()
            return
        self._listener.asked(self, number, questions)

    def _prove(self, payload: bytes) -> None:
        theirs, told = payload[:NONCE_BYTES], payload[NONCE_BYTES:]
        if not hmac.compare_digest(told, proof(self._token, GATEWAY, self._nonce, theirs)):
            log.warning("a line is cut: whoever called does not hold this cluster's token")
            self.cut()
            return
        self._known = True
        self.proved()
        self.send(proof(self._token, REPLICA, theirs, self._nonce))
