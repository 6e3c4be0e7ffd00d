"""Accuracy over time, in windows of labelled captures; and the score now. Bounded: the newest few thousand captures."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from holdfast.domain.answers import labels_in, row_score
from holdfast.domain.captures import LabelledCapture
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.review import by_chance
from holdfast.domain.routing import COUNTED_ROUTES
from holdfast.domain.tasks import Metric
from holdfast.ports import CaptureLog, House

NEWEST_CAPTURES = 4_000
"""Labelled captures of a task that its plots look back over, at most."""
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
class LabelledRow:
    """What a plot needs of one labelled capture."""

    seq: int
    captured_at: datetime
    labelled_at: datetime
    adapter: AdapterDigest
    label: str
    """The right one."""
    score: float
    """How right the answer was, 0..1 in the task's metric."""

    @property
    def wrong(self) -> bool:
        """Whether anything in it was wrong."""
        return self.score < 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What the newest labelled captures of a task say."""

    points: tuple[WindowPoint, ...]
    newest_label_at: datetime | None
    rows: tuple[LabelledRow, ...]
    """In order of capture."""


NOTHING = Labelled(points=(), newest_label_at=None, rows=())


class Series:
    """The newest labelled captures of one task, kept in memory and read on from where the last look ended."""

    def __init__(self, task: TaskName, metric: Metric = "accuracy") -> None:
        self._task, self._metric = task, metric
        self._lock = threading.Lock()
        self._rows: dict[int, LabelledRow] = {}
        self._cursor: int | None = None
        self._found = NOTHING

    def read(self, log: CaptureLog) -> Labelled:
        """What is known now. The first look reads the newest captures, every further one only the labels that came since."""
        with self._lock:
            fresh = self._begin(log) if self._cursor is None else self._go_on(log, self._cursor)
            if fresh:
                self._rows = dict(sorted({**self._rows, **{r.seq: r for r in fresh}}.items())[-NEWEST_CAPTURES:])
                self._found = _labelled(tuple(self._rows.values()))
            return self._found

    def _begin(self, log: CaptureLog) -> list[LabelledRow]:
        newest = log.newest(self._task, NEWEST_CAPTURES)
        found = log.labelled_since(self._task, newest[0].seq) if newest else ()
        if found:
            self._cursor = max(r.label.seq for r in found)
        return [_row(r, self._metric) for r in found if _counts(r)]

    def _go_on(self, log: CaptureLog, cursor: int) -> list[LabelledRow]:
        fresh: list[LabelledRow] = []
        while page := log.labelled_after(self._task, cursor, 1_000):
            fresh += [_row(r, self._metric) for r in page if _counts(r)]
            self._cursor = cursor = page[-1].label.seq
            if len(fresh) >= NEWEST_CAPTURES:  # far behind: the newest captures alone are quicker
                return self._begin(log)
        return fresh


class SeriesCache:
    """The series of every task somebody looked at. Safe to use from several threads."""

    def __init__(self, most: int = 2_000) -> None:
        self._most, self._lock = most, threading.Lock()
        self._series: OrderedDict[tuple[House, str, Metric], Series] = OrderedDict()

    def labelled(self, house: House, task: TaskName, metric: Metric = "accuracy") -> Labelled:
        """What the newest labelled captures of a task say."""
        with self._lock:
            series = self._series.setdefault((house, task, metric), Series(task, metric))
            self._series.move_to_end((house, task, metric))
            while len(self._series) > self._most:
                self._series.popitem(last=False)
        return series.read(house.log)


def _counts(found: LabelledCapture) -> bool:
    """Whether a row speaks for the version's quality: neither its version nor its label was chosen."""
    return found.capture.route in COUNTED_ROUTES and by_chance(found)


def _row(found: LabelledCapture, metric: Metric) -> LabelledRow:
    return LabelledRow(
        seq=found.capture.seq,
        captured_at=found.capture.captured_at,
        labelled_at=found.label.labelled_at,
        adapter=found.capture.adapter_digest,
        label=found.label.value,
        score=row_score(found.capture.prediction.label, found.label.value, metric),
    )


def _labelled(rows: tuple[LabelledRow, ...]) -> Labelled:
    return Labelled(points=windows_of(rows), newest_label_at=max(r.labelled_at for r in rows), rows=rows)


def windows_of(rows: Sequence[LabelledRow]) -> tuple[WindowPoint, ...]:
    """Windows of equal row counts, 20 to 200 each; a short rest joins the window before it."""
    if not rows:
        return ()
    size = min(max(math.ceil(len(rows) / WINDOWS), 20), 200)
    starts = list(range(0, len(rows), size))
    if len(starts) > 1 and len(rows) - starts[-1] < size / 2:
        starts.pop()
    ends = [*starts[1:], len(rows)]
    return tuple(_point(rows[start:end]) for start, end in zip(starts, ends, strict=True) if end > start)


def _point(rows: Sequence[LabelledRow]) -> WindowPoint:
    right = sum(r.score for r in rows)
    lower, upper = wilson(right, len(rows))
    return WindowPoint(
        first_at=rows[0].captured_at,
        last_at=rows[-1].captured_at,
        value=right / len(rows),
        lower=lower,
        upper=upper,
        row_count=len(rows),
    )


def wilson(hits: float, rows: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927). For scores between 0 and 1, ``hits`` is their sum; they vary less than a share does,
    so that the interval is rather too wide.

    >>> tuple(round(bound, 3) for bound in wilson(45, 50))
    (0.786, 0.957)
    """
    centre = (hits + z * z / 2) / (rows + z * z)
    half = z / (rows + z * z) * math.sqrt(hits * (rows - hits) / rows + z * z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def quality_of(found: Labelled, digest: AdapterDigest | None) -> RecentQuality:
    """Quality now: of one version, on its newest labelled captures. Nothing labelled: unknown."""
    own = [r for r in found.rows if r.adapter == digest][-NOW_ROWS:]
    by_label: dict[str, list[float]] = defaultdict(list)
    for row in own:
        for label in labels_in(row.label):
            by_label[label].append(row.score)
    overall = _score([row.score for row in own]) if own else None
    return RecentQuality(overall=overall, by_label={label: _score(scores) for label, scores in sorted(by_label.items())})


def _score(scores: Sequence[float]) -> RecentScore:
    rows, right = len(scores), sum(scores)
    lower, upper = wilson(right, rows)
    return RecentScore(value=right / rows, lower=lower, upper=upper, row_count=rows)
