"""Which training rows teach: suspected labels stay out, a changed meaning is no error, the past is replayed where it helps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.backends.lora.head import Rows
from holdfast.backends.lora.selection import KEPT_ROWS, Split, select
from holdfast.domain.datasets import Period, SnapshotRow
from holdfast.testing.builders import a_snapshot_row

LABELS = ("a", "b", "c")


def split(count: int, *, seed: int, period: Period = "past", wrong: Sequence[int] = (), shift: int = 0) -> Split:
    """Three classes around three corners of a space of 8. Labels at ``wrong`` are the next one; ``shift`` moves every label on."""
    chance = np.random.default_rng(seed)
    true = np.arange(count) % 3
    pooled = (0.25 * chance.normal(size=(count, 8)) + 2.0 * np.eye(3, 8)[true]).astype(np.float32)
    targets = (true + shift) % 3
    targets[list(wrong)] = (targets[list(wrong)] + 1) % 3
    rows: list[SnapshotRow] = [
        a_snapshot_row(seed * 10_000 + n, text=f"{seed} {n}", label=LABELS[target], period=period, source="desk")
        for n, target in enumerate(targets)
    ]
    return Split(rows, Rows(pooled, targets.astype(np.int64)))


def both(one: Split, other: Split) -> Split:
    return Split([*one.rows, *other.rows], one.seen + other.seen)


NOTHING = split(0, seed=9)


def test_rows_with_planted_wrong_labels_are_left_out_and_listed_with_what_they_should_be() -> None:
    train = split(300, seed=1, wrong=(30, 61, 92))
    chosen, taught = select(train, NOTHING, LABELS, 0.05)
    assert sorted(set(range(300)) - set(chosen)) == [30, 61, 92]
    assert {(row.label, row.suggested) for row in taught.suspected} == {("b", "a"), ("c", "b"), ("a", "c")}
    assert taught.taught_count == 297


def test_no_more_than_the_capped_share_is_left_out_and_none_when_it_is_zero() -> None:
    train = split(300, seed=1, wrong=range(0, 60, 3))
    assert len(select(train, NOTHING, LABELS, 0.02)[1].suspected) == 6
    assert select(train, NOTHING, LABELS, 0.0)[1].suspected == ()


def test_labels_whose_meaning_changed_are_not_suspected_though_the_past_says_otherwise() -> None:
    train = both(split(900, seed=1), split(120, seed=2, period="recent", shift=1))
    assert select(train, NOTHING, LABELS, 0.2)[1].suspected == ()


def test_labels_with_few_rows_are_never_suspected() -> None:
    assert select(split(24, seed=1, wrong=(3,)), NOTHING, LABELS, 0.5)[1].suspected == ()


def test_the_whole_past_is_replayed_where_less_of_it_is_not_surely_better() -> None:
    train = both(split(600, seed=1), split(60, seed=2, period="recent"))
    validation = both(split(60, seed=3), split(60, seed=4, period="recent"))
    chosen, taught = select(train, validation, LABELS, 0.0)
    assert (taught.replay_share, len(chosen)) == (1.0, 660)
    assert [trial.share for trial in taught.replay_trials] == [1.0, 0.5, 0.25, 0.1]


def test_less_of_a_past_that_contradicts_the_present_is_replayed_and_every_label_stays() -> None:
    train = both(split(600, seed=1), split(60, seed=2, period="recent", shift=1))
    validation = both(split(40, seed=3), split(400, seed=4, period="recent", shift=1))
    chosen, taught = select(train, validation, LABELS, 0.0)
    scores = {trial.share: (trial.past_score + trial.recent_score) / 2 for trial in taught.replay_trials}
    assert scores[taught.replay_share] >= max(scores.values()) - 0.05
    past = [train.rows[i].label for i in chosen if train.rows[i].period == "past"]
    assert min(past.count(label) for label in LABELS) >= KEPT_ROWS


def test_without_validation_rows_of_both_periods_nothing_is_tried() -> None:
    train = both(split(90, seed=1), split(90, seed=2, period="recent"))
    chosen, taught = select(train, split(60, seed=3), LABELS, 0.0)
    assert (taught.replay_trials, chosen) == ((), list(range(180)))


def test_of_sets_of_labels_only_the_share_of_the_past_is_chosen() -> None:
    train, validation = (both(split(90, seed=s), split(90, seed=s + 1, period="recent")) for s in (1, 3))
    _, taught = select(sets(train), sets(validation), LABELS, 0.5)
    assert taught.suspected == ()
    assert len(taught.replay_trials) == 3


def sets(one: Split) -> Split:
    table: NDArray[np.float32] = np.eye(3, dtype=np.float32)[one.seen.targets.astype(np.int64)]
    return Split(one.rows, Rows(one.seen.pooled, table))
