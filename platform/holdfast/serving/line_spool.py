"""Lines on their way to the log: first in a spool file, before the reply; then, by a thread, in the database.

A line written by ``write(2)`` is the kernel's: it outlives the process. So a reply that says it is stored keeps its word under
``kill -9`` and with the database down. What a line holds, and how it is stored, is for the subclasses; storing twice must be
storing once, since a line may be read twice.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from holdfast.serving import spool_files
from holdfast.serving.spool_files import Segment

log = logging.getLogger("holdfast.serving")
ROWS_AT_ONCE = 500
LONGEST_PAUSE_S = 5.0
NO_LIMIT = 1 << 62


class LineSpool(ABC):
    """Takes lines from the request path and brings them on."""

    def __init__(self, folder: Path, *, segment_rows: int, pause_s: float, limit_bytes: int = NO_LIMIT) -> None:
        """``pause_s``: how long lines gather before they are brought: rows that share a transaction cost a tenth of lone ones.

        ``limit_bytes``: of lines of this process that wait; above, a line is refused.
        """
        self._folder, self._segment_rows, self._pause_s, self._limit_bytes = folder, segment_rows, pause_s, limit_bytes
        self._started = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
        self._lock = threading.Lock()
        self._current: Segment | None = None
        self._full: deque[Segment] = deque()
        self._offsets: dict[Path, int] = {}
        self._waiting_bytes = 0
        self._stop, self._news = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._drain_for_ever, name=f"{folder.name}-drain", daemon=True)
        self.failing: str | None = None
        """Why the log takes nothing at the moment."""

    @abstractmethod
    def _store_lines(self, lines: Sequence[bytes]) -> int:
        """Bring whole lines on; the number of new rows. Raises what the log raises; then they are brought again."""

    @abstractmethod
    def _torn(self) -> None:
        """A process died within a line."""

    def start(self) -> None:
        """Begin to bring lines to the log; those of processes that died come first."""
        self._thread.start()

    def close(self) -> None:
        """Bring what can be brought, then stop. What cannot stays in the spool for the next process."""
        self._stop.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        with self._lock:
            if self._current is not None:
                self._full.append(self._current)
                self._current = None
        try:
            self.drain()
        except Exception as error:  # the process ends anyway; the lines stay
            log.warning("%s keeps its lines for the next start: %s", self._folder.name, error)
        for segment in [*self._full, *([self._current] if self._current else [])]:
            segment.close()

    def drain(self) -> int:
        """Bring all that lies in the spool and is ours or orphaned; the number of new rows. Raises what the log raises."""
        return self._drain_own() + self._drain_orphans()

    @property
    def waiting_count(self) -> int:
        """Segments written here that are not yet known to be in the log."""
        with self._lock:
            segments = [*self._full, *([self._current] if self._current else [])]
            return sum(segment.size > self._offsets.get(segment.path, 0) for segment in segments)

    @property
    def waiting_bytes(self) -> int:
        """Of lines of this process that wait."""
        return self._waiting_bytes

    def _write(self, line: bytes) -> str | None:
        """Put a line into the spool; why not, when the disk or the limit does not take it. Costs tens of microseconds."""
        try:
            with self._lock:
                if self._waiting_bytes + len(line) > self._limit_bytes:
                    return f"{self._waiting_bytes} bytes wait already"
                self._append(line)
        except OSError as error:
            return error.strerror or str(error)
        self._news.set()
        return None

    def _append(self, line: bytes) -> None:
        if self._current is not None and self._current.line_count >= self._segment_rows:
            self._full.append(self._current)
            self._current = None
        if self._current is None:
            self._current = spool_files.create(self._folder, self._started)
        self._current.append(line)
        self._waiting_bytes += len(line)

    def _drain_for_ever(self) -> None:
        pause = self._pause_s
        orphans_due = True
        while not self._stop.is_set():
            try:
                moved = self._drain_own()
                if orphans_due or not moved:
                    moved += self._drain_orphans()
                self.failing, pause, orphans_due = None, self._pause_s, False
            except Exception as error:  # the log may be away for long; the spool keeps what was accepted
                if self.failing is None:
                    log.warning("%s waits: %s", self._folder.name, error)
                self.failing = f"{type(error).__name__}: {error}"[:300]
                pause = min(pause * 2, LONGEST_PAUSE_S)
                self._stop.wait(pause)
                continue
            self._news.wait(1.0)
            self._news.clear()
            self._stop.wait(self._pause_s)  # lines that come together are brought together

    def _drain_own(self) -> int:
        moved = 0
        while True:
            with self._lock:
                segment = self._full[0] if self._full else self._current
                size = segment.size if segment else 0
            if segment is None:
                return moved
            try:
                moved += self._bring(segment.path, size, ours=True)
            except FileNotFoundError:
                if segment.path.exists():
                    raise
                self._vanished(segment)
                continue
            with self._lock:
                if not self._full or segment is not self._full[0]:
                    return moved
                if segment.size > size:
                    continue  # it took its last lines, and became full, after its size was read
                self._full.popleft()
            self._remove(segment.path)
            segment.close()

    def _vanished(self, segment: Segment) -> None:
        """Somebody removed a segment. Its lines are lost; those of the others must not wait for it."""
        log.error("%s is gone, with what was not in the log yet", segment.path)
        with self._lock:
            if segment is self._current:
                self._current = None
            else:
                self._full.remove(segment)
            self._waiting_bytes -= segment.size - self._offsets.pop(segment.path, 0)
        segment.close()

    def _drain_orphans(self) -> int:
        moved = 0
        for path, handle in spool_files.adopt(self._folder):
            try:
                size = os.fstat(handle).st_size
                moved += self._bring(path, size, ours=False)
                if self._offsets.get(path, 0) < size:
                    self._torn()
                self._remove(path)
            finally:
                os.close(handle)
        return moved

    def _bring(self, path: Path, size: int, *, ours: bool) -> int:
        """Store the whole lines up to ``size``, remembering how far it came."""
        moved, offset = 0, self._offsets.get(path, 0)
        with path.open("rb") as file:
            file.seek(offset)
            while offset < size:
                lines = _lines(file, size - offset)
                if not lines:
                    break
                moved += self._store_lines(lines)
                length = sum(map(len, lines))
                offset += length
                self._offsets[path] = offset
                if ours:
                    with self._lock:
                        self._waiting_bytes -= length
        return moved

    def _set_aside(self, line: bytes, reason: str) -> None:
        """Keep a line that can never be stored where a person can find it."""
        log.error("a line was set aside in %s/refused.txt: %s", self._folder.name, reason)
        with (self._folder / "refused.txt").open("ab") as file:
            file.write(line)

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._offsets.pop(path, None)


def _lines(file: BinaryIO, budget: int) -> list[bytes]:
    """At most `ROWS_AT_ONCE` whole lines from the position of the file, none beyond ``budget`` bytes."""
    found: list[bytes] = []
    while len(found) < ROWS_AT_ONCE and budget > 0:
        line = file.readline(budget)
        if not line.endswith(b"\n"):
            break
        found.append(line)
        budget -= len(line)
    return found
