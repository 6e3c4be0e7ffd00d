"""Browser sessions: random tokens in the memory of this process. A restart signs everybody out."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

COOKIE = "holdfast_session"
LIFE_S = 12 * 3600.0
MOST = 1_000
"""Sessions kept; the oldest goes first."""


@dataclass(frozen=True, slots=True)
class Session:
    """Who is signed in. ``csrf`` stands in every form of the session's pages."""

    name: str
    key_hash: str
    """A session ends with its key."""
    csrf: str
    ends: float


class Sessions:
    """Sessions by the SHA-256 of their token. Safe to use from several threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._by_hash: dict[str, Session] = {}

    def begin(self, *, name: str, key_hash: str) -> str:
        """A new session; its token goes into the cookie."""
        token = secrets.token_urlsafe(32)
        session = Session(name, key_hash, secrets.token_urlsafe(32), self._monotonic() + LIFE_S)
        with self._lock:
            while len(self._by_hash) >= MOST:
                del self._by_hash[next(iter(self._by_hash))]
            self._by_hash[_hash(token)] = session
        return token

    def find(self, token: str) -> Session | None:
        """The living session of a token."""
        with self._lock:
            session = self._by_hash.get(_hash(token))
            if session is not None and self._monotonic() >= session.ends:
                del self._by_hash[_hash(token)]
                return None
            return session

    def end(self, token: str) -> None:
        """Sign out."""
        with self._lock:
            self._by_hash.pop(_hash(token), None)


def csrf_valid(session: Session, given: str) -> bool:
    """Whether a form carries the token of the session, compared in constant time."""
    return hmac.compare_digest(session.csrf.encode(), given.encode())


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
