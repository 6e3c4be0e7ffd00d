"""Frames over TCP, and the proof with which a line begins: both ends hold Ray's token, and neither says it.

A frame is four bytes of length (big-endian) and so many bytes. Who listens sends 32 random bytes; who called sends 32 of its own and
HMAC-SHA256 of both under the token; who listens answers with another HMAC of both. So a stranger gets no answer, and a false replica
no question; neither proof can be used on another connection. What follows is msgpack, which holds data and nothing that runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import struct
from typing import Any

import msgpack

LENGTH = struct.Struct(">I")
NONCE_BYTES, PROOF_BYTES = 32, 32
UNPROVED_BYTES = NONCE_BYTES + PROOF_BYTES
"""Longest frame before the proof."""
MOST_BYTES = 128 << 20
"""Longest frame after it: 1,024 texts of 20,000 characters of four bytes are 80 MiB."""
PROVE_S = 5.0
"""A connection that has not proved itself for so long is cut."""
GATEWAY, REPLICA = b"holdfast gateway", b"holdfast replica"


def proof(token: bytes, role: bytes, theirs: bytes, own: bytes) -> bytes:
    """That whoever plays ``role`` holds the token, on the connection of these two random numbers."""
    return hmac.digest(token, role + theirs + own, hashlib.sha256)


class Frames(asyncio.Protocol):
    """One end of a line. Subclasses say what a frame means."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._most = UNPROVED_BYTES
        self._transport: asyncio.Transport | None = None
        self._cut_later: asyncio.TimerHandle | None = None

    def received(self, payload: bytes) -> None:
        """A frame came."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport  # type: ignore[assignment]
        self._cut_later = asyncio.get_running_loop().call_later(PROVE_S, self.cut)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        if self._cut_later is not None:
            self._cut_later.cancel()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        rest, begin = self._rest, 0
        rest += data
        while len(rest) - begin >= LENGTH.size:
            (length,) = LENGTH.unpack_from(rest, begin)
            if length > self._most:
                self.cut()
                return
            end = begin + LENGTH.size + length
            if len(rest) < end:
                break
            self.received(bytes(rest[begin + LENGTH.size : end]))
            if self._transport is None or self._transport.is_closing():
                return
            begin = end
        del rest[:begin]

    def send(self, payload: bytes) -> None:
        """Write a frame; nothing when the connection is gone."""
        if self._transport is not None:
            self._transport.write(LENGTH.pack(len(payload)) + payload)

    def proved(self) -> None:
        """The other end holds the token."""
        self._most = MOST_BYTES
        if self._cut_later is not None:
            self._cut_later.cancel()

    def cut(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def end(self) -> None:
        """End it when everything is written."""
        if self._transport is not None:
            self._transport.close()


def pack(message: object) -> bytes:
    """Lists, tuples, texts, bytes and numbers as bytes."""
    packed: bytes = msgpack.packb(message, use_bin_type=True)
    return packed


def unpack(payload: bytes) -> Any:
    """The other way; lists come as tuples. Raises ValueError on what is no message."""
    try:
        return msgpack.unpackb(payload, use_list=False, raw=False, strict_map_key=True)
    except (msgpack.exceptions.UnpackException, msgpack.exceptions.ExtraData, UnicodeDecodeError) as error:
        raise ValueError(f"no message: {error}") from error
