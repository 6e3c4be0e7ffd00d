"""Confidence sequences: they cover at every look, are about as tight as they can be, and never guess."""

from __future__ import annotations

import time

import numpy as np
import pytest

from holdfast.domain.quality import quality_of, score
from holdfast.domain.statistics.confidence import interval, two_shares
from holdfast.testing.streams import a_stream


@pytest.mark.parametrize("truth", [0.05, 0.5, 0.93])
def test_the_mean_is_inside_at_every_row_count_in_all_but_alpha_of_streams(truth: float) -> None:
    random, missed = np.random.default_rng(1), 0
    for _ in range(200):
        found = interval((random.random(400) < truth).astype(np.float64), alpha=0.1)  # the last bound holds those of every look
        assert found is not None
        missed += not found.lower <= truth <= found.upper
    assert missed <= 20


def test_paired_differences_are_covered_too() -> None:
    random, missed = np.random.default_rng(2), 0
    for _ in range(200):
        found = interval(random.choice([-1.0, 0.0, 1.0], 300, p=[0.1, 0.7, 0.2]), alpha=0.1, low=-1.0)
        assert found is not None
        missed += not found.lower <= 0.1 <= found.upper
    assert missed <= 20


def test_it_is_not_much_wider_than_an_interval_for_one_look() -> None:
    rows = (np.random.default_rng(3).random(1_000) < 0.9).astype(np.float64)
    found = interval(rows, alpha=0.05)
    assert found is not None
    assert found.upper - found.lower < 2.0 * 2 * 1.96 * np.sqrt(0.09 / 1_000)


def test_ninety_right_answers_of_ninety_leave_little_doubt() -> None:
    found = interval(np.ones(90), alpha=0.05)
    assert found is not None
    assert found.upper == 1.0
    assert 0.90 < found.lower < 0.05 ** (1 / 90)


def test_two_thousand_rows_take_less_than_a_fifth_of_a_second() -> None:
    rows = (np.random.default_rng(4).random(2_000) < 0.9).astype(np.float64)
    begin = time.process_time()
    interval(rows, alpha=0.05)
    assert time.process_time() - begin < 0.2


def test_no_row_gives_no_interval() -> None:
    assert interval(np.empty(0), alpha=0.05) is None
    assert score([]) is None
    assert quality_of([]).overall is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1.5, -0.1])
def test_a_value_that_is_not_finite_or_out_of_range_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        interval(np.array([0.5, bad]), alpha=0.05)


@pytest.mark.parametrize("alpha", [0.0, 1.0, np.nan])
def test_an_error_rate_that_is_none_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        interval(np.ones(5), alpha=alpha)


def test_rows_without_a_common_mean_leave_the_whole_range() -> None:
    found = interval(np.concatenate([np.ones(300), np.zeros(300)]), alpha=0.05)
    assert found is not None
    assert (found.lower, found.upper) == (0.0, 1.0)


def test_quality_is_scored_overall_and_by_true_label() -> None:
    rows = a_stream(200, 1, share_right=0.9)
    report = quality_of(rows)
    assert report.overall is not None
    assert report.overall.value == np.mean([not row.wrong for row in rows])
    assert report.overall.lower <= report.overall.value <= report.overall.upper
    assert sum(s.row_count for s in report.by_label.values()) == 200


def test_a_share_that_rose_surely_has_a_lower_bound_above_zero() -> None:
    assert two_shares(60, 100, 10, 100)[1] > 0.3
    assert two_shares(12, 100, 10, 100)[1] < 0
    assert two_shares(5, 5, 0, 0) == (0.0, -1.0)
