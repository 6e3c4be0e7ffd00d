"""Accuracy without labels: what it says, and when it says nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from holdfast.domain.statistics.label_free import MOST_WEIGHT, Sample, calibrated, density_ratio, estimate


def rows(count: int, seed: int, *, shift: float = 0.0, labelled: bool = True, flatter: float = 1.0) -> Sample:
    """Right with the probability that the confidence names, raised to a power; the features are two numbers around ``shift``."""
    random = np.random.default_rng(seed)
    confidence = random.uniform(0.3, 1.0, count)
    right = (random.random(count) < confidence**flatter).astype(np.float64)
    features = random.standard_normal((count, 2)) + np.array([0.0, shift])
    return Sample(confidence=confidence, features=features, right=right if labelled else np.full(count, np.nan))


def with_labels(sample: Sample, count: int) -> Sample:
    known: NDArray[np.float64] = np.full(len(sample.right), np.nan)
    known[:count] = sample.right[:count]
    return dataclasses.replace(sample, right=known)


def test_it_finds_the_accuracy_of_unchanged_traffic_without_a_label() -> None:
    current = rows(2_000, 2)
    found = estimate(rows(1_000, 1), with_labels(current, 0))
    assert found.value == pytest.approx(current.right.mean(), abs=0.03)
    assert found.lower < current.right.mean() < found.upper
    assert found.label_count == 0 and found.effective_rows > 900


def test_overconfidence_that_the_reference_shows_is_taken_out() -> None:
    current = rows(2_000, 2, flatter=3.0)
    found = estimate(rows(2_000, 1, flatter=3.0), with_labels(current, 0))
    assert current.confidence.mean() - current.right.mean() > 0.2
    assert found.value == pytest.approx(current.right.mean(), abs=0.03)


def test_labels_make_the_interval_narrower() -> None:
    current = rows(2_000, 2)
    widths = [(e := estimate(rows(300, 1), with_labels(current, count))).upper - e.lower for count in (0, 50, 400)]
    assert widths[0] > widths[1] > widths[2]


def test_it_withdraws_when_labels_contradict_it() -> None:
    current = rows(1_000, 2)
    turned = dataclasses.replace(current, right=1.0 - current.right)
    found = estimate(rows(1_000, 1), with_labels(turned, 60))
    assert found.value is None and "has changed" in found.withdrawn
    assert (found.lower, found.upper) == (0.0, 1.0)


def test_it_withdraws_when_the_reference_is_worth_too_few_rows_of_this_traffic() -> None:
    found = estimate(rows(200, 1), rows(1_000, 2, shift=4.0, labelled=False))
    assert found.value is None and "50 are needed" in found.withdrawn
    assert 0 < found.effective_rows < 50


def test_it_withdraws_when_much_of_the_traffic_is_unlike_the_reference() -> None:
    current = rows(1_000, 2, labelled=False)
    far = dataclasses.replace(current, features=current.features + np.array([10.0, 0.0]))
    found = estimate(rows(1_000, 1), far)
    assert found.value is None and "unlike the reference" in found.withdrawn


def test_rows_unlike_the_reference_may_all_be_wrong() -> None:
    current = rows(1_000, 2, labelled=False)
    features = current.features.copy()
    features[:150, 0] += 10.0
    found = estimate(rows(1_000, 1), dataclasses.replace(current, features=features))
    plain = estimate(rows(1_000, 1), current)
    assert found.value is not None and plain.value is not None
    assert found.novel_share == pytest.approx(0.14, abs=0.03)
    assert found.lower < plain.lower - 0.05


@pytest.mark.parametrize(
    ("reference", "current", "reason"),
    [
        (rows(99, 1), rows(500, 2), "99 calibration rows"),
        (rows(500, 1), rows(1, 2), "1 rows of traffic"),
        (rows(500, 1), rows(0, 2), "0 rows of traffic"),
        (rows(500, 1, labelled=False), rows(500, 2), "0 calibration rows"),
        (dataclasses.replace(rows(500, 1), confidence=np.full(500, 0.5)), rows(500, 2), "constant"),
        (dataclasses.replace(rows(500, 1), right=np.ones(500)), rows(500, 2), "constant"),
        (rows(500, 1), dataclasses.replace(rows(500, 2), features=np.full((500, 2), np.nan)), "0 rows of traffic"),
    ],
)
def test_too_little_to_go_by_is_said(reference: Sample, current: Sample, reason: str) -> None:
    found = estimate(reference, current)
    assert found.value is None and reason in found.withdrawn


def test_rows_that_are_not_finite_do_not_count() -> None:
    current = rows(500, 2, labelled=False)
    broken = current.confidence.copy()
    broken[:100] = np.nan
    found = estimate(rows(500, 1), dataclasses.replace(current, confidence=broken))
    assert found.row_count == 400 and found.value is not None


def test_the_same_rows_give_the_same_estimate() -> None:
    assert estimate(rows(300, 1), rows(300, 2, labelled=False)) == estimate(rows(300, 1), rows(300, 2, labelled=False))


def test_weights_make_the_reference_like_the_traffic() -> None:
    before, now = rows(4_000, 1).features, rows(4_000, 2, shift=1.0).features
    weights = density_ratio(before, now)
    assert weights.mean() == pytest.approx(1.0)
    assert np.average(before, axis=0, weights=weights) == pytest.approx(now.mean(axis=0), abs=0.15)
    assert weights.max() <= MOST_WEIGHT * len(weights) / weights.sum() * 2


def test_a_constant_feature_changes_no_weight() -> None:
    before, now = rows(300, 1).features, rows(300, 2).features
    more = [np.column_stack([side, np.ones(len(side))]) for side in (before, now)]
    assert density_ratio(*more) == pytest.approx(density_ratio(before, now))


def test_the_curve_never_falls() -> None:
    sample = rows(500, 1)
    curve = calibrated(sample, np.ones(500), np.linspace(0, 1, 50))
    assert (np.diff(curve) >= 0).all() and curve.min() >= 0 and curve.max() <= 1
