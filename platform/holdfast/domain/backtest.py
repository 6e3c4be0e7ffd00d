"""Backtest: what the loop would have done on a history, as records and the arithmetic on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from holdfast.domain.answers import label_counts
from holdfast.domain.datasets import HistoryRow
from holdfast.domain.ids import TaskName
from holdfast.domain.tasks import Kind, Metric, MonitoringPolicy, PromotionPolicy, RetrainingPolicy, TaskContract
from holdfast.errors import DataInvalid, RequestInvalid

SMALLEST_WARMUP = 100
"""Rows of a first version, at least: a fifth of them is held out, and a gate on fewer than twenty rows says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """How a history is replayed."""

    warmup_share: float = 0.2
    """Share of the rows, the oldest, that the first version is trained on."""
    label_delay: int = 100
    """Events that pass before the label of an event is known."""
    label_share: float = 1.0
    """Share of events whose label ever becomes known to the loop. The score is always taken on all."""
    seed: int = 0
    """Decides which labels become known."""
    period_count: int = 20
    """Periods of the table, of equal event count."""
    batch_rows: int = 25
    """Events between two looks of the loop. Decisions see only what had come by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Accuracy of the three arms over one stretch of the history; of sets and spans the mean F1 of a row, where the contract says so."""

    start: datetime
    end: datetime
    first_index: int
    events: int
    accuracy_loop: float
    accuracy_frozen: float
    accuracy_bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertMark:
    """An alert that the loop opened."""

    at: datetime
    event_index: int
    """Position in the history of the newest event that the loop had seen."""
    onset_index: int
    """Where the monitors place the change."""
    monitor: str
    diagnosis: str
    """The cause as last diagnosed."""
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingMark:
    """A retraining that the loop started, with how it ended."""

    requested_at: datetime
    event_index: int
    labels_used: int
    seconds: float
    verdict: str
    """`pass`, `fail`, `need more`, or `none` when it ended before a verdict."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionMark:
    """A new champion."""

    at: datetime
    event_index: int
    adapter_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The whole history in figures."""

    rows: int
    warmup_rows: int
    events: int
    labels_known: int
    """Labels that had come to the loop by the end."""
    labels_new: int
    """Classes that first appear after the warm-up."""
    metric: Metric
    """What every ``accuracy_…`` here is measured in: the metric of the contract."""
    accuracy_loop: float
    accuracy_frozen: float
    accuracy_bound: float
    share_of_gap: float | None
    """(loop - frozen) / (bound - frozen); None where the bound is less than half a point above the frozen version."""
    alert_count: int
    retraining_count: int
    promotion_count: int
    rung: str
    run_length_events: int
    """What the monitors promise: on unchanged traffic an alarm within n events has probability at most n divided by this."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """The result. Everything but seconds depends on the history, the contract and the plan alone."""

    periods: tuple[Period, ...]
    alerts: tuple[AlertMark, ...]
    retrainings: tuple[RetrainingMark, ...]
    promotions: tuple[PromotionMark, ...]
    totals: Totals


def date_form(periods: Sequence[Period]) -> str:
    """How instants of a history are written (as strftime has it): days; in a history of at most a week also the time of day."""
    return "%Y-%m-%d" if periods[-1].end - periods[0].start > timedelta(days=7) else "%m-%d %H:%M"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One replayed event: how right each arm was, 0..1 in the metric of the contract."""

    loop: float
    frozen: float
    bound: float


def check_plan(plan: ReplayPlan) -> None:
    """Raises RequestInvalid at the first number out of its range."""
    limits = {
        "warmup_share": (0.01, 0.95), "label_delay": (0, 10**9), "label_share": (0.0, 1.0),
        "period_count": (1, 1000), "batch_rows": (1, 10**6),
    }  # fmt: skip
    for name, (low, high) in limits.items():
        if not low <= getattr(plan, name) <= high:
            raise RequestInvalid(place=name, problem=f"it must lie in {low:g} .. {high:g}", remedy=f"give another {name}")


def warmup_rows(history: Sequence[HistoryRow], plan: ReplayPlan) -> int:
    """How many rows the first version is trained on.

    Raises DataInvalid when they are too few, hold one class only, or nothing is left to replay.
    """
    count = round(len(history) * plan.warmup_share)
    problem = None
    if count < SMALLEST_WARMUP:
        problem = f"the warm-up has {count} rows, {SMALLEST_WARMUP} are needed"
    elif len({row.label for row in history[:count]}) < 2:
        problem = "the warm-up holds only one label"
    elif len(history) - count < plan.batch_rows:
        problem = "nothing is left after the warm-up"
    if problem is not None:
        raise DataInvalid(
            source="history", problem=problem, place=f"the {count} oldest rows", remedy="give more rows or another --warmup-share."
        )
    return count


def derived_contract(warmup: Sequence[HistoryRow], *, rung: str = "head", kind: Kind = "classification") -> TaskContract:
    """The contract of a history that comes without one: labels of the warm-up, open to new ones, no floor, no cool-down; sets and
    spans are judged by the mean F1 of their rows.

    Drift of the inputs alone may start a retraining: the labels are there, and the gate lets through only what is surely better.

    A hundred labels since the change are asked for, more where the first version learnt from many rows or there are many classes:
    a third of them judge the candidate, and a handful adds nothing to thousands.
    The loss on past rows that is tolerated is what the held-out fifth of the warm-up can tell apart from none.
    """
    labels = label_counts(row.label for row in warmup)
    return TaskContract(
        task=TaskName("backtest"),
        kind=kind,
        metric="accuracy" if kind == "classification" else "f1",
        labels=tuple(sorted(labels)),
        labels_open=True,
        floor=0.0,
        monitoring=MonitoringPolicy(input_alarm_acts=True),
        retraining=RetrainingPolicy(
            rung=rung,  # type: ignore[arg-type]
            min_labels=max(100, len(warmup) // 8, 3 * len(labels)),
            cool_down_s=0.0,
            max_per_day=1000,
        ),
        promotion=PromotionPolicy(min_holdout_rows=min(50, len(warmup) // 8), margin=round(min(0.2, max(0.05, 60 / len(warmup))), 3)),
    )


def becomes_known(index: int, plan: ReplayPlan) -> bool:
    """Whether the label of an event ever reaches the loop.

    >>> becomes_known(7, ReplayPlan(label_share=0.0)), becomes_known(7, ReplayPlan(label_share=1.0))
    (False, True)
    """
    raw = hashlib.blake2b(f"label {plan.seed} {index}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") / 2**64 < plan.label_share


def cut(first: int, stop: int, count: int) -> tuple[tuple[int, int], ...]:
    """``first .. stop`` in at most ``count`` stretches whose lengths differ by one at most.

    >>> cut(10, 21, 3)
    ((10, 13), (13, 17), (17, 21))
    """
    count = min(count, stop - first)
    edges = [first + (stop - first) * i // count for i in range(count + 1)]
    return tuple(pairwise(edges))


def period_of(rows: Sequence[HistoryRow], outcomes: Sequence[Outcome]) -> Period:
    """The record of one stretch; both have the same length, at least 1."""
    return Period(
        start=rows[0].at,
        end=rows[-1].at,
        first_index=rows[0].index,
        events=len(rows),
        accuracy_loop=_share([o.loop for o in outcomes]),
        accuracy_frozen=_share([o.frozen for o in outcomes]),
        accuracy_bound=_share([o.bound for o in outcomes]),
    )


def accuracies(periods: Sequence[Period]) -> tuple[float, float, float]:
    """Loop, frozen and bound over all events."""
    events = sum(p.events for p in periods)
    sums = [sum(getattr(p, name) * p.events for p in periods) for name in ("accuracy_loop", "accuracy_frozen", "accuracy_bound")]
    loop, frozen, bound = (round(total / events, 6) for total in sums)
    return loop, frozen, bound


def share_of_gap(loop: float, frozen: float, bound: float) -> float | None:
    """How much of what could be won the loop won.

    >>> share_of_gap(0.8, 0.7, 0.9)
    0.5
    """
    return None if bound - frozen < 0.005 else round((loop - frozen) / (bound - frozen), 3)


def _share(flags: Sequence[float]) -> float:
    return round(sum(flags) / len(flags), 6)
