"""Labels on their way to the log: a line in the spool before the reply, a row in the database once its capture is there.

A label may come before its capture has left the spool, of this gateway or of another; it then waits, on disk, and is brought again.
After ``wait_s`` it counts as unmatched and is kept in ``unmatched.txt``, where a person finds it, up to a bound.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic_core import from_json, to_json

from holdfast.domain.captures import Feedback
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.flows.record import Delivered
from holdfast.ports import Clock
from holdfast.serving.line_spool import LineSpool

log = logging.getLogger("holdfast.serving")
Deliver = Callable[[Sequence[Feedback]], Delivered]
UNMATCHED = "unmatched.txt"
UNMATCHED_BYTES = 16 << 20
"""Of the file of unmatched labels; what comes after is counted only."""


@dataclass(slots=True)
class LabelCounts:
    """What became of labels given at this gateway, since the process began."""

    accepted: int = 0
    refused: int = 0
    """Not taken: full disk, or too many wait. The caller was told."""
    stored: int = 0
    """New in the log."""
    known: int = 0
    """In the log already: the same capture, value and source."""
    unmatched: int = 0
    """No capture came within the time."""
    invalid: int = 0
    """Can never be stored: another task's capture, no label of the task; kept in ``refused.txt``."""
    torn: int = 0
    unreadable: int = 0


class LabelBuffer(LineSpool):
    """Takes labels from the request path and brings them to the log, after their captures."""

    def __init__(
        self, folder: Path, deliver: Deliver, clock: Clock, *, segment_rows: int = 1000, limit_bytes: int = 64 << 20,
        wait_s: float = 600.0, pause_s: float = 0.5,
    ) -> None:  # fmt: skip
        """``wait_s``: how long a label waits for its capture."""
        super().__init__(folder, segment_rows=segment_rows, pause_s=pause_s, limit_bytes=limit_bytes)
        self._deliver, self._clock, self._wait_s = deliver, clock, wait_s
        self.counts = LabelCounts()

    def accept(self, one: Feedback) -> str | None:
        """Write the label to the spool; why not, when the disk or the limit does not take it."""
        problem = self._write(line_of(one))
        if problem is None:
            self.counts.accepted += 1
        else:
            self.counts.refused += 1
        return problem

    def _store_lines(self, lines: Sequence[bytes]) -> int:
        given = [one for line in lines if (one := self._read(line)) is not None]
        done = self._deliver(given)
        for one, reason in done.refused:
            self.counts.invalid += 1
            self._set_aside(line_of(one), reason)
        for one in done.unmatched:
            self._wait_on(one)
        self.counts.stored += done.stored_count
        self.counts.known += len(given) - done.stored_count - len(done.refused) - len(done.unmatched)
        return done.stored_count

    def _wait_on(self, one: Feedback) -> None:
        """Write it again behind the others, before the place where it stood is given up; or give it up itself."""
        if (self._clock() - one.given_at).total_seconds() < self._wait_s:
            with self._lock:
                self._append(line_of(one))
            return
        self.counts.unmatched += 1
        path = self._folder / UNMATCHED
        if not path.exists() or path.stat().st_size < UNMATCHED_BYTES:
            with path.open("ab") as file:
                file.write(line_of(one))
        log.warning("a label for %s (task %s) met no capture within %g s; see %s", one.capture_id, one.task, self._wait_s, path)

    def _read(self, line: bytes) -> Feedback | None:
        try:
            return feedback_of(line)
        except (ValueError, KeyError, TypeError) as error:
            self.counts.unreadable += 1
            self._set_aside(line, str(error))
            return None

    def _torn(self) -> None:
        self.counts.torn += 1


def line_of(one: Feedback) -> bytes:
    """A label as one line of JSON, its line feed included."""
    plain = {"id": one.capture_id, "task": one.task, "value": one.value, "source": one.source, "at": one.given_at}
    return to_json(plain) + b"\n"


def feedback_of(line: bytes) -> Feedback:
    """The label of a line. Raises ValueError, KeyError or TypeError when it is not one."""
    plain = from_json(line)
    return Feedback(
        capture_id=CaptureId(plain["id"]), task=TaskName(plain["task"]) if plain["task"] else None, value=plain["value"],
        source=plain["source"], given_at=datetime.fromisoformat(plain["at"]),
    )  # fmt: skip
