"""The one write lock of the database in memory."""

from __future__ import annotations

import threading
from types import TracebackType

from holdfast.errors import PartUnavailable


class WriteLock:
    """A lock that says so when a thread would wait for itself, where SQLite would hang until its time-out."""

    def __init__(self, wait_s: float = 10.0) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None
        self._wait_s = wait_s

    def acquire(self) -> None:
        """Wait for the lock.

        Raises:
            PartUnavailable: after ``wait_s`` seconds; at once when this thread already holds it, because a unit of work (or a
                write to the capture log) inside a unit of work would wait for itself.
        """
        if self._holder == threading.get_ident():
            raise PartUnavailable(part="database", reason="locked: this thread is inside a unit of work already")
        if not self._lock.acquire(timeout=self._wait_s):
            raise PartUnavailable(part="database", reason="locked")
        self._holder = threading.get_ident()

    def release(self) -> None:
        """Give it back."""
        self._holder = None
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
