"""Captures on their way to the log: first a line in a spool file, before the reply; then, by a thread, a row in the database.

A line written by ``write(2)`` is the kernel's: it outlives the process. So a reply that says its capture is stored keeps its word
under ``kill -9`` and with the database down. The log stores a capture id once, so a line read twice counts once.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from holdfast.domain.captures import Capture
from holdfast.errors import BadInput
from holdfast.serving import spool_files
from holdfast.serving.spool_files import Segment

log = logging.getLogger("holdfast.serving")
Store = Callable[[Sequence[Capture]], int]
ROWS_AT_ONCE = 500
LONGEST_PAUSE_S = 5.0


@dataclass(slots=True)
class Counts:
    """What became of captures, since the process began."""

    accepted: int = 0
    refused: int = 0
    """Not written to the spool: full or read-only disk. The prediction was answered all the same, and said so."""
    stored: int = 0
    """New in the log."""
    torn: int = 0
    """Half lines of processes that died while they wrote; never acknowledged."""
    unreadable: int = 0
    """Whole lines that are no capture, or that the log will never take; kept in ``refused.txt``."""


class CaptureBuffer:
    """Takes captures from the request path and brings them to the log."""

    def __init__(self, folder: Path, store: Store, *, segment_rows: int, pause_s: float = 0.5) -> None:
        """``pause_s``: how long lines gather before they are brought: rows that share a transaction cost a tenth of lone ones."""
        self._folder, self._store = folder, store
        self._segment_rows, self._pause_s = segment_rows, pause_s
        self._started = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
        self._lock = threading.Lock()
        self._current: Segment | None = None
        self._full: deque[Segment] = deque()
        self._offsets: dict[Path, int] = {}
        self._stop, self._news = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._drain_for_ever, name="capture-drain", daemon=True)
        self.counts = Counts()
        self.failing: str | None = None
        """Why the log does not take captures at the moment."""

    def start(self) -> None:
        """Begin to bring captures to the log; those of processes that died come first."""
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
            log.warning("captures stay in the spool for the next start: %s", error)
        for segment in self._full:
            segment.close()

    def accept(self, capture: Capture) -> bool:
        """Write the capture to the spool; False when the disk does not take it. Costs tens of microseconds."""
        line = spool_files.line_of(capture)
        try:
            with self._lock:
                self._append(line)
        except OSError as error:
            self.counts.refused += 1
            if self.counts.refused == 1 or self.counts.refused % 1000 == 0:
                log.error("capture refused (%d so far): %s cannot be written: %s", self.counts.refused, self._folder, error.strerror)
            return False
        self.counts.accepted += 1
        self._news.set()
        return True

    def drain(self) -> int:
        """Bring all that lies in the spool and is ours or orphaned; the number of new rows. Raises what the log raises."""
        return self._drain_own() + self._drain_orphans()

    @property
    def waiting_count(self) -> int:
        """Captures accepted here that are not yet known to be in the log."""
        with self._lock:
            segments = [*self._full, *([self._current] if self._current else [])]
            return sum(segment.size > self._offsets.get(segment.path, 0) for segment in segments)

    def _append(self, line: bytes) -> None:
        if self._current is not None and self._current.line_count >= self._segment_rows:
            self._full.append(self._current)
            self._current = None
        if self._current is None:
            self._current = spool_files.create(self._folder, self._started)
        self._current.append(line)

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
                    log.warning("captures wait in the spool: %s", error)
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
            moved += self._bring(segment.path, size)
            with self._lock:
                if not self._full or segment is not self._full[0]:
                    return moved
                if segment.size > size:
                    continue  # it took its last lines, and became full, after its size was read
                self._full.popleft()
            self._remove(segment.path)
            segment.close()

    def _drain_orphans(self) -> int:
        moved = 0
        for path, handle in spool_files.adopt(self._folder):
            try:
                size = os.fstat(handle).st_size
                moved += self._bring(path, size)
                self.counts.torn += self._offsets.get(path, 0) < size
                self._remove(path)
            finally:
                os.close(handle)
        return moved

    def _bring(self, path: Path, size: int) -> int:
        """Store the whole lines up to ``size``, remembering how far it came."""
        moved, offset = 0, self._offsets.get(path, 0)
        with path.open("rb") as file:
            file.seek(offset)
            while offset < size:
                lines = _lines(file, size - offset)
                if not lines:
                    break
                moved += self._store_lines(lines)
                offset += sum(map(len, lines))
                self._offsets[path] = offset
        return moved

    def _store_lines(self, lines: Sequence[bytes]) -> int:
        captures = []
        for line in lines:
            try:
                captures.append(spool_files.capture_of(line))
            except (ValueError, KeyError, TypeError) as error:
                self._set_aside(line, error)
        try:
            new = self._store(captures)
        except BadInput:
            new = sum(self._store_one(capture) for capture in captures)
        self.counts.stored += new
        return new

    def _store_one(self, capture: Capture) -> int:
        try:
            return self._store([capture])
        except BadInput as error:
            self._set_aside(spool_files.line_of(capture), error)
            return 0

    def _set_aside(self, line: bytes, error: Exception) -> None:
        self.counts.unreadable += 1
        log.error("a spooled line was set aside in refused.txt: %s", error)
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
