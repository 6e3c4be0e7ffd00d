"""Dataset snapshots: frozen rows with their split and where each came from. What goes into one is decided in `splits`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from holdfast.domain.ids import SnapshotDigest, TaskName
from holdfast.domain.records import digest_of

Split = Literal["train", "validation", "holdout"]
Period = Literal["past", "recent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One text with its right label, as a person brings it."""

    text: str
    label: str
    source: str = "file"
    """Where it came from: `file`, `capture`, or the name of a label source."""
    capture_id: str | None = None
    place: str = field(default="", compare=False)
    """Where it stands in what the person brought, such as `line 3`; for messages alone. Empty: its position counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """One dated, labelled event of the past, as a backtest replays it."""

    text: str
    label: str
    at: datetime
    """Aware, UTC."""
    index: int
    """Position in the history in order of time, from 0; rows of one instant keep the order of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRow:
    """One row of a snapshot. A text, however often it occurs, is in one split only."""

    row_id: int
    text: str
    label: str
    split: Split
    period: Period
    """`recent`: labelled captures since the change that started the retraining; `past`: all that was there before."""
    source: str
    capture_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Rows that were there and neither teach nor judge, and texts that carry more than one label: counted at the freeze."""

    near_duplicate_count: int = 0
    """Beyond the contract's number of near-duplicates with one label."""
    sealed_alike_count: int = 0
    """Near-duplicates of a held-out row, which no version may train on."""
    conflict_count: int = 0
    """Rows whose text, or nearly, has another label by a newer row."""
    conflicts_by_source: Mapping[str, int] = field(default_factory=dict)
    """Source of the older label to the number of those rows."""
    capped_by_source: Mapping[str, int] = field(default_factory=dict)
    """Source of labels to its recent rows beyond its share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectedRow:
    """A training row whose label models that were not taught it are sure is another one; it was left out of training."""

    row_id: int
    text: str
    label: str
    source: str
    suggested: str
    """The label that they say."""
    margin: float
    """By how much they rather say it: probability of `suggested` minus that of `label`, 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayTrial:
    """One share of the past training rows, tried with a head; shares of right answers on the validation rows."""

    share: float
    row_count: int
    """Past rows that it replays."""
    past_score: float
    recent_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaughtRows:
    """What a training made of the training rows of its snapshot."""

    taught_count: int
    suspected: tuple[SuspectedRow, ...] = ()
    """The surest first."""
    replay_share: float = 1.0
    """Share of the past training rows that was replayed."""
    replay_trials: tuple[ReplayTrial, ...] = ()
    """Empty where there was nothing to choose, or too few validation rows to choose by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSnapshot:
    """The record of a frozen data set; its rows lie in the snapshot store under the same digest."""

    digest: SnapshotDigest
    task: TaskName
    row_count: int
    train_count: int
    validation_count: int
    holdout_past_count: int
    holdout_recent_count: int
    labels: tuple[str, ...]
    created_at: datetime
    origin: Literal["person", "loop"] = "loop"
    """`person`: examples that somebody brought; `loop`: frozen for a retraining."""
    contradicted_count: int = 0
    """Past rows left out because recent labels contradict them."""
    left_out: LeftOut = LeftOut()
    taught: TaughtRows | None = None
    """Of the newest training on it; None before one."""


def rows_digest(rows: Iterable[SnapshotRow]) -> SnapshotDigest:
    """The name of a snapshot: the digest of its rows in their order."""
    return SnapshotDigest(digest_of(tuple(rows)))
