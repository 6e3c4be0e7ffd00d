"""Comparison: what two policies decided on one history, decision by decision, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from holdfast.domain.backtest import Backtest, Outcome
from holdfast.domain.tasks import TaskContract
from holdfast.errors import DataInvalid

DecisionKind = Literal["alert", "diagnosis", "retraining requested", "retraining held", "verdict", "promotion"]
BLOCKS = 20
"""Blocks of successive events of an interval. The mean of a history moves, so the confidence sequences of the gates, which ask for one
that stands still, do not apply."""
PAIRED_WITHIN = 0.1
"""Share of the events of the history that may lie between two decisions of one kind that are taken for the same one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision of the loop."""

    kind: DecisionKind
    said: str
    """Monitors of an alert, cause and action of a diagnosis, reason of a hold, outcome of a verdict; else empty."""
    event_index: int
    """Position in the history of the newest event that the loop had seen."""
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One replay with all that a comparison needs of it."""

    result: Backtest
    decisions: tuple[Decision, ...]
    outcomes: tuple[Outcome, ...]
    """How right each arm was on each event."""
    cpu_seconds: float
    """Of the loop alone: answers, monitors, trainings; without the arms it is compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean over the history with the bounds of its 95% interval."""

    mean: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """A decision that both took, or that only one took."""

    kind: DecisionKind
    a: Decision | None
    b: Decision | None

    @property
    def distance(self) -> int | None:
        """Events by which B was later; None when only one took it."""
        return self.b.event_index - self.a.event_index if self.a and self.b else None

    @property
    def words(self) -> str:
        """How the two stand to each other."""
        if self.a is None or self.b is None:
            return "only in B" if self.a is None else "only in A"
        if self.a == self.b:
            return "same"
        moved = self.b.event_index - self.a.event_index
        when = f"B {abs(moved)} events {'later' if moved > 0 else 'earlier'}" if moved else "at the same event"
        return when if self.a.said == self.b.said else f"{when}, other content"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One policy in figures."""

    policy: str
    accuracy: Mean
    alert_count: int
    retraining_count: int
    promotion_count: int
    train_seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The result. ``difference`` is B minus A, event by event."""

    a: Arm
    b: Arm
    difference: Mean
    decisions: tuple[Paired, ...]
    summary: str
    replays: tuple[Backtest, Backtest]


def check_comparable(a: TaskContract, b: TaskContract, *, sources: tuple[str, str]) -> None:
    """Raises DataInvalid when the contracts are not about the same task."""
    for name in ("task", "kind", "labels"):
        ours, theirs = getattr(a, name), getattr(b, name)
        alike = sorted(ours) == sorted(theirs) if name == "labels" else ours == theirs
        if not alike:
            raise DataInvalid(
                source=" and ".join(sources), problem=f"they differ in {name}, so they are not two policies of one task", place=name,
                remedy=f"give both the same {name}.",
            )  # fmt: skip


def compare(policies: tuple[str, str], a: Replay, b: Replay) -> Comparison:
    """Two replays of the same events. Raises ValueError when they are not."""
    ours, theirs = _scores(a), _scores(b)
    if len(ours) != len(theirs):
        raise ValueError("the replays are of different histories")
    difference = mean_of(theirs - ours)
    pairs = pair(a.decisions, b.decisions, within=round(PAIRED_WITHIN * len(ours)))
    bare = Comparison(
        a=_arm(policies[0], a), b=_arm(policies[1], b), difference=difference, decisions=pairs, summary="", replays=(a.result, b.result)
    )
    return replace(bare, summary=_summary(bare, identical=bool(np.array_equal(ours, theirs))))


def mean_of(scores: NDArray[np.float64]) -> Mean:
    """The mean of scores [n], n at least 2, in the order of the events, with Student's interval from the means of successive blocks.

    Blocks make successive events that resemble each other count as fewer (method of batch means, Law and Carson, 1979).

    >>> mean_of(np.array([1.0, 1.0, 0.0, 1.0]))
    Mean(mean=0.75, lower=-0.046, upper=1.546)
    """
    blocks = np.array([block.mean() for block in np.array_split(scores, min(BLOCKS, len(scores)))])
    half = float(stats.t.ppf(0.975, len(blocks) - 1) * blocks.std(ddof=1) / np.sqrt(len(blocks)))
    mean = float(scores.mean())
    return Mean(mean=round(mean, 6), lower=round(mean - half, 3), upper=round(mean + half, 3))


def pair(a: Sequence[Decision], b: Sequence[Decision], *, within: int) -> tuple[Paired, ...]:
    """Decisions of one kind are paired nearest first, the same content before another, each once, at most ``within`` events apart.

    In order of the event of the earlier of the two.
    """
    near = sorted(
        (abs(y.event_index - x.event_index), x.said != y.said, n, m)
        for n, x in enumerate(a)
        for m, y in enumerate(b)
        if x.kind == y.kind and abs(y.event_index - x.event_index) <= within
    )
    taken: dict[int, int] = {}
    for _, _, n, m in near:
        if n not in taken and m not in taken.values():
            taken[n] = m
    both = [Paired(kind=x.kind, a=x, b=b[taken[n]] if n in taken else None) for n, x in enumerate(a)]
    rest = [Paired(kind=y.kind, a=None, b=y) for m, y in enumerate(b) if m not in taken.values()]
    return tuple(sorted([*both, *rest], key=_place))


def _place(pair: Paired) -> int:
    return min(d.event_index for d in (pair.a, pair.b) if d is not None)


def _scores(replay: Replay) -> NDArray[np.float64]:
    return np.array([outcome.loop for outcome in replay.outcomes], dtype=np.float64)


def _arm(policy: str, replay: Replay) -> Arm:
    accuracy, totals = mean_of(_scores(replay)), replay.result.totals
    return Arm(
        policy=policy, accuracy=accuracy, alert_count=totals.alert_count, retraining_count=totals.retraining_count,
        promotion_count=totals.promotion_count, train_seconds=round(sum(r.seconds for r in replay.result.retrainings), 2),
        cpu_seconds=round(replay.cpu_seconds, 1),
    )  # fmt: skip


def _summary(c: Comparison, *, identical: bool) -> str:
    words = [p.words for p in c.decisions]
    if identical and all(word == "same" for word in words):
        return f"No difference: all {len(words)} decisions are the same at the same events, and every event is answered equally well."
    counts = {"A": words.count("only in A"), "B": words.count("only in B"), "same": words.count("same")}
    moved = len(words) - sum(counts.values())
    d = c.difference
    better = "neither is surely better"
    if d.lower > 0 or d.upper < 0:
        better = f"{'B' if d.lower > 0 else 'A'} answers surely better"
    return (
        f"Of {len(words)} decisions {counts['same']} are the same, {moved} moved or differ in content, {counts['A']} are only in A and "
        f"{counts['B']} only in B; {better} (B minus A {100 * d.mean:+.1f} points, {100 * d.lower:+.1f} to {100 * d.upper:+.1f}), with "
        f"{c.a.retraining_count} retrainings in A and {c.b.retraining_count} in B."
    )
