"""Conformal p-values: uniform whatever the score and the size of the reference, and the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from holdfast.domain.statistics.conformal import bins_of, edges_of, p_values, ties_of


def _p_of(scores: NDArray[np.float64], calibration: int, bins: int, random: np.random.Generator) -> NDArray[np.float64]:
    edges = edges_of(random.standard_normal(300), bins)
    cells = bins_of(scores, edges)
    counts = np.bincount(cells[:calibration], minlength=len(edges) + 1)
    return p_values(counts, cells[calibration:], random.random(len(scores) - calibration))[0]


@pytest.mark.parametrize("calibration", [1, 30, 500])
@pytest.mark.parametrize("bins", [2, 16, 128])
def test_without_change_they_are_uniform_and_uncorrelated(calibration: int, bins: int) -> None:
    random = np.random.default_rng(1)
    p = np.concatenate([_p_of(random.standard_normal(calibration + 50), calibration, bins, random) for _ in range(400)])
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(p[:-1], p[1:])[0, 1]) < 0.03


def test_the_error_of_a_small_reference_is_carried_over_many_streams() -> None:
    """The mean p-value of a long stream does not stray further than that of independent uniform numbers would."""
    random = np.random.default_rng(2)
    means = np.array([_p_of(random.standard_normal(30 + 400), 30, 64, random).mean() for _ in range(300)])
    assert means.std() < 1.15 / np.sqrt(12 * 400)


def test_constant_scores_are_uniform_too() -> None:
    random = np.random.default_rng(3)
    assert stats.kstest(_p_of(np.zeros(2_000), 100, 128, random), "uniform").pvalue > 0.001


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 60), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_cutting_a_stream_anywhere_changes_nothing(bins: list[int], cut: int, seed: int) -> None:
    cells, ties = np.array(bins), np.random.default_rng(seed).random(len(bins))
    whole, after = p_values(np.array([1, 0, 2, 0, 1]), cells, ties)
    first, between = p_values(np.array([1, 0, 2, 0, 1]), cells[:cut], ties[:cut])
    second, end = p_values(between, cells[cut:], ties[cut:])
    assert np.array_equal(whole, np.concatenate([first, second]))
    assert np.array_equal(after, end)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_they_are_the_textbook_rank(bins: list[int], seed: int) -> None:
    cells, ties = np.array(bins), np.random.default_rng(seed).random(len(bins))
    p, _ = p_values(np.zeros(5, dtype=np.int64), cells, ties)
    for i in range(len(cells)):
        above, same = (cells[: i + 1] > cells[i]).sum(), (cells[: i + 1] == cells[i]).sum()
        assert p[i] == (above + ties[i] * same) / (i + 1)


def test_more_rows_than_one_chunk_are_ranked_as_one_stream() -> None:
    random = np.random.default_rng(4)
    cells, ties = random.integers(0, 8, 1_300), random.random(1_300)
    whole, _ = p_values(np.ones(8, dtype=np.int64), cells, ties)
    counts, one_by_one = np.ones(8, dtype=np.int64), []
    for i in range(1_300):
        p, counts = p_values(counts, cells[i : i + 1], ties[i : i + 1])
        one_by_one.append(p[0])
    assert whole.tolist() == one_by_one


def test_ties_are_uniform_strictly_inside_and_differ_between_keys_and_components() -> None:
    ties = ties_of([f"request-{n}" for n in range(2_000)], 3)
    assert all(stats.kstest(column, "uniform").pvalue > 0.001 for column in ties.T)
    assert ties.min() > 0 and ties.max() < 1
    assert len(np.unique(ties)) == ties.size
    assert ties_of(["request-7"], 3).tolist() == ties[7:8].tolist()
    assert ties_of([], 3).shape == (0, 3)


def test_edges_of_nothing_finite_are_none() -> None:
    assert edges_of(np.array([np.nan, np.inf])).size == 0
    assert edges_of(np.empty(0)).size == 0
