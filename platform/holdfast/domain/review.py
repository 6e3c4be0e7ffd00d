"""Review: a request for labels on rows chosen for information, and what becomes of its rows while people answer.

A label request buys the evidence that an alert on inputs or outputs lacks: whether the answers are wrong more often than the task
tolerates. How rows are chosen is in `review_choice`, what their answers say in `review_evidence`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from holdfast.domain.captures import LabelledCapture
from holdfast.domain.ids import AdapterDigest, AlertId, CaptureId, ReviewId, TaskName
from holdfast.domain.tasks import RetrainingPolicy
from holdfast.errors import Conflict, NotFound

SOURCE = "review"
"""Source of the labels that a review brings; a second answer to one row is `review:2`, and so on."""
LIFE = timedelta(days=7)
"""A request that is still open after this is closed: its traffic is old by then."""
LEAST_ROWS, MOST_ROWS = 20, 1_000
USUAL_ROWS = 100
CONTROL_SHARE = 0.25
"""Share of the rows that is taken from before the change, so that a loss is a difference and not a level."""

Period = Literal["since", "before"]
"""Since the onset of the change, or before it."""
RequestState = Literal["open", "closed", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRow:
    """One capture of a request, drawn once or several times, and what was said of it."""

    capture_id: CaptureId
    seq: int
    period: Period
    draws: tuple[int, ...]
    """At which draws of its period, counted from 0, it came up; it is asked once and counts each time."""
    weight: float
    """1 / (captures of the period times the probability of one draw)."""
    said: str
    """The answer of the model, in its canonical text."""
    confidence: float
    value: str | None = None
    """The right answer, in its canonical text."""
    skipped: bool = False
    turn: int = 0
    """Which answer of a person this was, counted from 1; 0 for a label that the log had already."""
    answer_count: int = 0
    """How many times a person has answered it."""
    by: str = ""
    at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether it waits for an answer."""
        return self.value is None and not self.skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRequest:
    """A request for labels of one version of a task: who asked, from which traffic, and the rows in the order they are asked."""

    request_id: ReviewId
    task: TaskName
    adapter_digest: AdapterDigest
    alert_id: AlertId | None
    asked_by: str
    asked_at: datetime
    expires_at: datetime
    onset_seq: int
    """Capture seq at which the change began; 0 where nobody names a change: then all rows count as `since`."""
    since_count: int
    """Captures that the rows of `since` were drawn from."""
    before_count: int
    rows: tuple[ReviewRow, ...]
    state: RequestState = "open"
    closed_at: datetime | None = None
    closed_because: str = ""
    version: int = 0
    """Grows by one with each save; a save on an older one is refused, so no answer is lost between two reviewers."""

    def row(self, capture_id: CaptureId) -> ReviewRow:
        """Raises NotFound."""
        found = next((row for row in self.rows if row.capture_id == capture_id), None)
        if found is None:
            raise NotFound(kind=f"row of review {self.request_id}", name=capture_id)
        return found

    @property
    def next_row(self) -> ReviewRow | None:
        """The first row that waits; None when all are answered or skipped."""
        return next((row for row in self.rows if row.is_open), None)

    @property
    def last_row(self) -> ReviewRow | None:
        """The row that a person answered or skipped last."""
        return max((row for row in self.rows if row.turn), key=lambda row: row.turn, default=None)

    @property
    def open_count(self) -> int:
        return sum(row.is_open for row in self.rows)

    @property
    def answered_count(self) -> int:
        return sum(row.value is not None for row in self.rows)

    @property
    def skipped_count(self) -> int:
        return sum(row.skipped for row in self.rows)


def rows_for(policy: RetrainingPolicy) -> int:
    """How many rows an alert asks for: as many as a retraining will want since the change, with the share from before it.

    The evidence often stands after fewer, and then nobody has to go on.

    >>> rows_for(RetrainingPolicy(min_labels=150))
    200
    """
    return min(MOST_ROWS, max(USUAL_ROWS, round(policy.min_labels / (1.0 - CONTROL_SHARE))))


def by_chance(row: LabelledCapture) -> bool:
    """Whether a label came with the traffic. Those of a review fell on rows that were chosen for being doubtful: counted without their
    weights they make any version look worse than it is."""
    return row.label.source.split(":")[0] != SOURCE


def source_of(row: ReviewRow) -> str:
    """Source of the label that a row's newest answer becomes. The log stores one label of a source and value once, so that an answer
    taken back and given again needs a name of its own to be the newest."""
    return SOURCE if row.answer_count <= 1 else f"{SOURCE}:{row.answer_count}"


def answer(request: LabelRequest, capture_id: CaptureId, value: str, *, by: str, at: datetime) -> LabelRequest:
    """With the canonical answer to one row. The same answer again is no change; another one replaces it. Raises NotFound, Conflict."""
    row = _row_to_change(request, capture_id)
    if row.value == value:
        return request
    return _with(request, replace(row, value=value, skipped=False, turn=_turn(request), answer_count=row.answer_count + 1, by=by, at=at))


def skip(request: LabelRequest, capture_id: CaptureId, *, by: str, at: datetime) -> LabelRequest:
    """With one row left out: it counts as right for the lower bound and as wrong for the upper one. Raises NotFound, Conflict."""
    row = _row_to_change(request, capture_id)
    if row.skipped:
        return request
    return _with(request, replace(row, value=None, skipped=True, turn=_turn(request), by=by, at=at))


def take_back(request: LabelRequest) -> LabelRequest:
    """With the newest answer or skip of a person undone, so that its row is asked again. Raises Conflict when there is none."""
    row = request.last_row
    if row is None:
        raise Conflict(problem=f"Nobody has answered a row of review {request.request_id} yet.")
    return _with(_checked(request), replace(row, value=None, skipped=False, turn=0, by="", at=None))


def absorb(request: LabelRequest, labelled: Sequence[LabelledCapture]) -> LabelRequest:
    """With the labels that the log has for rows that still wait; not for those that a person took back."""
    known = {row.capture.capture_id: row.label for row in labelled}

    def filled(row: ReviewRow) -> ReviewRow:
        label = known.get(row.capture_id) if row.is_open and not row.answer_count else None
        return row if label is None else replace(row, value=label.value, by=f"label of {label.source}", at=label.labelled_at)

    return _each(request, filled)


def close(request: LabelRequest, *, state: RequestState, because: str, at: datetime) -> LabelRequest:
    """Closed; a request that is closed already stays as it is."""
    return request if request.state != "open" else replace(request, state=state, closed_because=because, closed_at=at)


def _row_to_change(request: LabelRequest, capture_id: CaptureId) -> ReviewRow:
    return _checked(request).row(capture_id)


def _checked(request: LabelRequest) -> LabelRequest:
    if request.state != "open":
        raise Conflict(problem=f"Review {request.request_id} is {request.state}: {request.closed_because}.")
    return request


def _turn(request: LabelRequest) -> int:
    last = request.last_row
    return last.turn + 1 if last else 1


def _with(request: LabelRequest, row: ReviewRow) -> LabelRequest:
    return _each(request, lambda one: row if one.capture_id == row.capture_id else one)


def _each(request: LabelRequest, change: Callable[[ReviewRow], ReviewRow]) -> LabelRequest:
    return replace(request, rows=tuple(change(row) for row in request.rows))
