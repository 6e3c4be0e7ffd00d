"""Accuracy over time, in windows of labelled captures; and the score now. Bounded: the newest few thousand captures."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from holdfast.domain.captures import LabelledCapture
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.ports import CaptureLog, House

NEWEST_CAPTURES = 4_000
"""Captures of a task that its plots look back over."""
NOW_ROWS = 100
"""Labelled captures that `quality now` is made of, at most."""
WINDOWS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPoint:
    """Accuracy in one window of labelled captures, with its 95 % Wilson interval (the window is a fixed sample)."""

    first_at: datetime
    last_at: datetime
    value: float
    lower: float
    upper: float
    row_count: int

    @property
    def mid_at(self) -> datetime:
        """The middle of the window."""
        return self.first_at + (self.last_at - self.first_at) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentScore:
    """Share of right answers in one window, with its 95 % Wilson interval.

    It is for reading: it holds for this window, also when the traffic changed within it, and not at every look. Decisions rest
    on the monitors and on the gate, whose intervals do.
    """

    value: float
    lower: float
    upper: float
    row_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentQuality:
    """Quality of one version on its newest labelled captures."""

    overall: RecentScore | None
    """None when there is no labelled row: unknown, never zero."""
    by_label: Mapping[str, RecentScore]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What the newest labelled captures of a task say."""

    points: tuple[WindowPoint, ...]
    newest_label_at: datetime | None
    row_count: int
    rows: tuple[tuple[AdapterDigest, str, bool], ...]
    """Adapter, true label and whether the answer was wrong, in order of capture."""


NOTHING = Labelled(points=(), newest_label_at=None, row_count=0, rows=())


class SeriesCache:
    """What `labelled_of` found, until a capture or label comes. Safe to use from several threads."""

    def __init__(self, most: int = 512) -> None:
        self._most, self._lock = most, threading.Lock()
        self._found: OrderedDict[tuple[House, str, int, int], Labelled] = OrderedDict()

    def labelled(self, house: House, task: TaskName, *, last_seq: int, label_count: int) -> Labelled:
        """As `labelled_of`. A label that replaces another counts as new."""
        key = (house, task, last_seq, label_count)
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        found = labelled_of(house.log, task) if label_count else NOTHING
        with self._lock:
            self._found[key] = found
            while len(self._found) > self._most:
                self._found.popitem(last=False)
        return found


def labelled_of(log: CaptureLog, task: TaskName) -> Labelled:
    """The labelled ones among the newest captures of a task."""
    newest = log.newest(task, NEWEST_CAPTURES)
    if not newest:
        return NOTHING
    rows = log.labelled_since(task, newest[0].seq)
    return Labelled(
        points=windows_of(rows),
        newest_label_at=max((r.label.labelled_at for r in rows), default=None),
        row_count=len(rows),
        rows=tuple((r.capture.adapter_digest, r.label.value, r.wrong) for r in rows),
    )


def windows_of(rows: Sequence[LabelledCapture]) -> tuple[WindowPoint, ...]:
    """Windows of equal row counts, 20 to 200 each; a short rest joins the window before it."""
    size = min(max(math.ceil(len(rows) / WINDOWS), 20), 200)
    starts = list(range(0, len(rows), size))
    if len(starts) > 1 and len(rows) - starts[-1] < size / 2:
        starts.pop()
    ends = [*starts[1:], len(rows)]
    return tuple(_point(rows[start:end]) for start, end in zip(starts, ends, strict=True) if end > start)


def _point(rows: Sequence[LabelledCapture]) -> WindowPoint:
    right = sum(not r.wrong for r in rows)
    lower, upper = wilson(right, len(rows))
    return WindowPoint(
        first_at=rows[0].capture.captured_at,
        last_at=rows[-1].capture.captured_at,
        value=right / len(rows),
        lower=lower,
        upper=upper,
        row_count=len(rows),
    )


def wilson(hits: int, rows: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927).

    >>> tuple(round(bound, 3) for bound in wilson(45, 50))
    (0.786, 0.957)
    """
    centre = (hits + z * z / 2) / (rows + z * z)
    half = z / (rows + z * z) * math.sqrt(hits * (rows - hits) / rows + z * z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def quality_of(found: Labelled, digest: AdapterDigest | None) -> RecentQuality:
    """Quality now: of one version, on its newest labelled captures. Nothing labelled: unknown."""
    own = [(label, wrong) for adapter, label, wrong in found.rows if adapter == digest][-NOW_ROWS:]
    by_label: dict[str, list[bool]] = defaultdict(list)
    for label, wrong in own:
        by_label[label].append(wrong)
    overall = _score([wrong for _, wrong in own]) if own else None
    return RecentQuality(overall=overall, by_label={label: _score(wrongs) for label, wrongs in sorted(by_label.items())})


def _score(wrongs: Sequence[bool]) -> RecentScore:
    rows = len(wrongs)
    right = rows - sum(wrongs)
    lower, upper = wilson(right, rows)
    return RecentScore(value=right / rows, lower=lower, upper=upper, row_count=rows)
