"""Captures on their way to the log: a line in the spool before the reply, a row in the database soon after.

The log stores a capture id once, so a line read twice counts once.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.domain.captures import Capture
from holdfast.errors import BadInput
from holdfast.serving import spool_files
from holdfast.serving.line_spool import NO_LIMIT, LineSpool

log = logging.getLogger("holdfast.serving")
Store = Callable[[Sequence[Capture]], int]


@dataclass(slots=True)
class Counts:
    """What became of captures, since the process began."""

    accepted: int = 0
    refused: int = 0
    """Not written to the spool: full or read-only disk, or the limit of what may wait. The prediction was answered, and said so."""
    stored: int = 0
    """New in the log."""
    torn: int = 0
    """Half lines of processes that died while they wrote; never acknowledged."""
    unreadable: int = 0
    """Whole lines that are no capture, or that the log will never take; kept in ``refused.txt``."""


class CaptureBuffer(LineSpool):
    """Takes captures from the request path and brings them to the log."""

    def __init__(self, folder: Path, store: Store, *, segment_rows: int, pause_s: float = 0.5, limit_bytes: int = NO_LIMIT) -> None:
        super().__init__(folder, segment_rows=segment_rows, pause_s=pause_s, limit_bytes=limit_bytes)
        self._store = store
        self.counts = Counts()
        self.producer = f"{os.getpid()}-{self._started}-{secrets.token_hex(4)}"
        self._numbering = threading.Lock()

    def accept(self, capture: Capture) -> bool:
        """Write the capture, numbered, to the spool; False when the disk or the limit does not take it, and its number is free again."""
        with self._numbering:
            numbered = replace(capture, producer=self.producer, number=self.counts.accepted + 1)
            problem = self._write(spool_files.line_of(numbered))
            self.counts.accepted += problem is None
        if problem is not None:
            self.counts.refused += 1
            if self.counts.refused == 1 or self.counts.refused % 1000 == 0:
                log.error("capture refused (%d so far): %s cannot be written: %s", self.counts.refused, self._folder, problem)
            return False
        return True

    def _store_lines(self, lines: Sequence[bytes]) -> int:
        captures = []
        for line in lines:
            try:
                captures.append(spool_files.capture_of(line))
            except (ValueError, KeyError, TypeError) as error:
                self._refuse(line, error)
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
            self._refuse(spool_files.line_of(capture), error)
            return 0

    def _refuse(self, line: bytes, error: Exception) -> None:
        self.counts.unreadable += 1
        self._set_aside(line, str(error))

    def _torn(self) -> None:
        self.counts.torn += 1
