"""Accuracy without labels, or with few: calibrated confidence, re-weighted to the traffic, with an interval, or a reason for none.

The model's confidence becomes a probability of being right by isotonic regression on calibration rows whose labels are known; those
rows are weighted by the density ratio of traffic over reference, so that the curve is that of the traffic. This is right while the
inputs shift and what is right for an input does not; it cannot see a change of that. So: rows unlike anything in the reference may
all be wrong, and lower the lower bound; the size of the correction counts as doubt; few labels are joined by inverse variance as
long as they agree, and when they do not the estimate withdraws.

Sources: Bialek et al., PAPE, "Estimating Model Performance Under Covariate Shift Without Labels" (2024, arXiv 2401.08348), for
re-weighting before calibration; Bickel, Brückner, Scheffer, "Discriminative learning under covariate shift" (2009), for the ratio;
Kong (1992) for the effective sample size. The interval is a model's, not a guarantee: its coverage is measured
(`tests/bench/bench_label_free.py`), and no alarm rests on it alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import norm

MIN_ROWS = 100
"""Calibration rows and rows of traffic below which nothing is said."""
MIN_EFFECTIVE = 50.0
"""Effective calibration rows below which the reference says too little of this traffic."""
MOST_NOVEL = 0.3
"""Share of rows unlike the reference above which its confidences say nothing of the whole."""
MOST_WEIGHT = 10.0
"""A calibration row counts for so many at most."""
NOVEL_QUANTILE = 0.99
"""Of the reference's distances: beyond it a row is novel."""
RIDGE = 1.0
ROUNDS = 25
"""Newton steps of the density ratio; it converges in about six."""
RESAMPLES = 100
LEAST_DOUBT = 0.01
"""Of the correction for shift, however small it is."""
CONTRADICTED = 2.8
"""Deviations between labels and estimate above which it withdraws."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Rows of one window in columns of equal length n."""

    confidence: NDArray[np.float64]
    """[n], 0..1."""
    features: NDArray[np.float64]
    """[n, k], what the density ratio may look at; the first column is a distance from everything known."""
    right: NDArray[np.float64]
    """[n], 1 where the answer was right, 0 where it was wrong, NaN where nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Accuracy of a window as far as it can be told."""

    value: float | None
    """0..1; None when it is withdrawn."""
    lower: float
    upper: float
    """0 and 1 when it is withdrawn."""
    row_count: int
    label_count: int
    effective_rows: float
    """Calibration rows that the weights leave."""
    novel_share: float
    """Share of rows beyond what is usual, above the usual one; 0..1."""
    withdrawn: str = ""
    """Why there is no estimate; empty when there is one."""


def estimate(reference: Sample, current: Sample, *, level: float = 0.9, seed: int = 0) -> Estimate:
    """The accuracy of ``current``, from ``reference`` (rows without a known answer are left out) and the labels that came.

    Args:
        level: coverage aimed at, 0..1.
        seed: of the bootstrap over the reference.

    >>> random = np.random.default_rng(1)
    >>> def rows(n, labelled):
    ...     confidence = random.uniform(0.3, 1.0, n)
    ...     right = (random.random(n) < confidence).astype(float)
    ...     return Sample(confidence=confidence, features=random.standard_normal((n, 2)), right=right if labelled else np.full(n, np.nan))
    >>> found = estimate(rows(500, True), rows(500, False))
    >>> found.lower < 0.65 < found.upper
    True
    """
    known = _finite(reference) & ~np.isnan(reference.right)
    usable = _finite(current)
    labelled = int((~np.isnan(current.right[usable])).sum())
    if known.sum() < MIN_ROWS or usable.sum() < MIN_ROWS:
        few = f"{int(known.sum())} calibration rows and {int(usable.sum())} rows of traffic; {MIN_ROWS} of each are needed"
        return withdrawn(few, int(usable.sum()), labelled)
    before, now = _kept(reference, known), _kept(current, usable)
    if np.ptp(before.confidence) == 0.0 or np.ptp(before.right) == 0.0:
        return withdrawn("confidence or correctness is constant in the calibration rows", len(now.right), labelled)
    novel = _novel_share(before, now)
    if novel > MOST_NOVEL:
        return withdrawn(f"{novel:.0%} of the rows are unlike the reference", len(now.right), labelled, novel=novel)
    weights = density_ratio(before.features, now.features)
    effective = _effective(weights)
    if effective < MIN_EFFECTIVE:
        reason = f"the reference is worth {effective:.0f} rows of this traffic; {MIN_EFFECTIVE:.0f} are needed"
        return withdrawn(reason, len(now.right), labelled, effective=effective, novel=novel)
    return _joined(before, now, weights, novel=novel, level=level, seed=seed)


def density_ratio(before: NDArray[np.float64], now: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights [m] of the rows ``before`` [m, k] that make them like ``now`` [n, k]; mean 1, each at most MOST_WEIGHT before scaling.

    The odds of a ridge-penalised logistic regression that tells both apart (Newton's method). Constant columns are left out.
    """
    both = np.vstack([before, now])
    spread = both.std(axis=0)
    columns = (both[:, spread > 0] - both[:, spread > 0].mean(axis=0)) / spread[spread > 0]
    x = np.column_stack([np.ones(len(both)), columns])
    y = np.concatenate([np.zeros(len(before)), np.ones(len(now))])
    penalty = np.full(x.shape[1], RIDGE)
    penalty[0] = 0.0
    beta = np.zeros(x.shape[1])
    for _ in range(ROUNDS):
        p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
        step = np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty + 1e-9), x.T @ (y - p) - penalty * beta)
        beta += step
        if np.abs(step).max() < 1e-8:
            break
    odds = np.exp(np.clip(x[: len(before)] @ beta, -30, 30)) * len(before) / len(now)
    odds = np.minimum(odds, MOST_WEIGHT)
    found: NDArray[np.float64] = odds / odds.mean()
    return found


def calibrated(before: Sample, weights: NDArray[np.float64], confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability [n] of being right at a ``confidence`` [n]: weighted isotonic regression on the rows ``before`` [m]."""
    values, place = np.unique(before.confidence, return_inverse=True)
    mass = np.bincount(place, weights)
    share = np.bincount(place, weights * before.right) / np.maximum(mass, 1e-12)
    fitted = isotonic_regression(share, weights=np.maximum(mass, 1e-9)).x
    found: NDArray[np.float64] = np.interp(confidence, values, fitted)
    return found


def _joined(before: Sample, now: Sample, weights: NDArray[np.float64], *, novel: float, level: float, seed: int) -> Estimate:
    """The estimate without labels, then joined with those that came."""
    each = calibrated(before, weights, now.confidence)
    free, variance = float(each.mean()), _variance(before, now, weights, seed)
    known = ~np.isnan(now.right)
    count, effective = int(known.sum()), _effective(weights)
    value, slack = free * (1 - novel / 2), free * novel / 2  # of novel rows anything between none and as many as usual is right
    if count:
        own, own_variance = _labels_only(now.right[known], each[known], each)
        if abs(own - value) - slack > CONTRADICTED * np.sqrt(variance + own_variance):
            reason = f"{count} labels say {own:.0%}, confidence says {value:.0%}: what is right for an input has changed"
            return withdrawn(reason, len(each), count, effective=effective, novel=novel)
        variance += slack**2 / 3  # of a uniform doubt
        value = (own_variance * value + variance * own) / (variance + own_variance)
        variance, slack = variance * own_variance / (variance + own_variance), 0.0
    half = float(norm.ppf((1 + level) / 2) * np.sqrt(variance)) + slack
    return Estimate(
        value=value, lower=max(0.0, value - half), upper=min(1.0, value + half), row_count=len(each), label_count=count,
        effective_rows=effective, novel_share=novel,
    )  # fmt: skip


def _variance(before: Sample, now: Sample, weights: NDArray[np.float64], seed: int) -> float:
    """Of the estimate without labels: the reference's share by bootstrap, the window's own, and the correction's size as doubt."""
    random, again = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        rows = random.integers(0, len(weights), len(weights))
        again.append(float(calibrated(_kept(before, rows), weights[rows], now.confidence).mean()))
    each = calibrated(before, weights, now.confidence)
    plain = calibrated(before, np.ones_like(weights), now.confidence)
    doubt = max(abs(float(each.mean() - plain.mean())), LEAST_DOUBT)  # as much again may be left uncorrected
    return float(np.var(again)) + float((each * (1 - each)).mean() + np.var(each)) / len(each) + doubt**2


def _labels_only(right: NDArray[np.float64], guessed: NDArray[np.float64], each: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of the labels [l], corrected by how the labelled rows' guesses differ from all rows' [n]; and its variance.

    Prediction-powered inference with the share of the guess that helps (Angelopoulos et al., PPI++, 2023); the rate is drawn to a
    half as by one row of each kind, so that a few labels that agree do not look certain.
    """
    count, total = len(right), len(each)
    rate = (right.sum() + 1) / (count + 2)
    spread = rate * (1 - rate)
    if count < 20 or np.ptp(guessed) == 0.0 or np.ptp(right) == 0.0:
        return float(rate), float(spread / count)
    power = float(np.clip(np.cov(right, guessed)[0, 1] / np.var(guessed) / (1 + count / total), 0.0, 1.0))
    value = float(rate + power * (each.mean() - guessed.mean()))
    explained = 2 * power * np.cov(right, guessed)[0, 1] - power**2 * np.var(guessed)
    return min(max(value, 0.0), 1.0), float(max(spread - explained, spread / 4) / count + power**2 * np.var(each) / total)


def _effective(weights: NDArray[np.float64]) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())


def _novel_share(before: Sample, now: Sample) -> float:
    limit = np.quantile(before.features[:, 0], NOVEL_QUANTILE)
    share = float((now.features[:, 0] > limit).mean())
    usual = 1 - NOVEL_QUANTILE
    noise = 2 * float(np.sqrt(usual / len(now.right) + usual / len(before.right)))
    return max(0.0, share - usual - noise)


def _finite(rows: Sample) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.isfinite(rows.confidence) & np.isfinite(rows.features).all(axis=1)
    return found


def _kept(rows: Sample, which: NDArray[np.bool_] | NDArray[np.int64]) -> Sample:
    return Sample(confidence=rows.confidence[which], features=rows.features[which], right=rows.right[which])


def withdrawn(reason: str, rows: int, labels: int, *, effective: float = 0.0, novel: float = 0.0) -> Estimate:
    """No estimate, and why: everything between 0 and 1 is possible."""
    return Estimate(
        value=None, lower=0.0, upper=1.0, row_count=rows, label_count=labels, effective_rows=effective, novel_share=novel, withdrawn=reason,
    )  # fmt: skip
