"""Time-uniform confidence sequences for the mean of bounded values, by betting.

A gambler who doubts that the mean is as low as m bets a fraction f of the capital on ``x / m - 1``, row after row; the
average over a grid of fractions is a fair game when m is the mean, so it reaches ``2 / alpha`` with probability at most
``alpha / 2``, at any number of looks. Every m at which it ever did is ruled out; the mirrored game rules out high means.
Both games are monotone in m, so each bound is found by bisection and is exact, with no grid over m.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2023), hedged capital with a
grid of constant fractions (section 5 and appendix B there).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FRACTIONS = np.array([0.01, 0.02, 0.04, 0.08, 0.14, 0.22, 0.32, 0.44, 0.58, 0.72, 0.84, 0.93, 0.99])
"""Shares of the capital that are bet; small ones serve long sequences, large ones clear cases."""
BISECTIONS = 24
"""Halvings of 0..1; the bound is then exact to 6e-8, on the safe side."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with bounds that hold at every row count at once, with probability 1 - alpha."""

    mean: float
    lower: float
    upper: float
    row_count: int


def interval(values: NDArray[np.float64], *, alpha: float, low: float = 0.0, high: float = 1.0) -> Interval | None:
    """The confidence sequence after the last of ``values`` [n], in the order given; None when there is none.

    The order must not depend on the values: sorted rows are a drifting stream.

    Args:
        values: each in low .. high.
        alpha: probability, 0..1, that the mean is ever outside; half of it on either side.
        low: least value possible.
        high: greatest value possible.

    Raises:
        ValueError: a value is not finite or out of range, or alpha is not inside 0..1. Nothing is guessed.

    >>> found = interval(np.tile([1.0, 1, 1, 0, 1, 1, 1, 1, 1, 1], 10), alpha=0.05)
    >>> found.mean, found.lower < 0.9 < found.upper
    (0.9, True)
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha must lie inside 0..1, not {alpha}")
    if values.size == 0:
        return None
    if not np.isfinite(values).all() or values.min() < low or values.max() > high:
        raise ValueError(f"every value must be finite and lie in {low:g} .. {high:g}")
    scaled = np.asarray((values - low) / (high - low), dtype=np.float64)
    wealth = float(np.log(2.0 / alpha))
    lower, upper = _least(scaled, wealth), 1.0 - _least(1.0 - scaled, wealth)
    if lower > upper:  # the rows have no common mean (they drifted): only the whole range is safe to say
        lower, upper = 0.0, 1.0
    span = high - low
    return Interval(float(values.mean()), low + span * lower, low + span * upper, int(values.size))


def _least(x: NDArray[np.float64], log_wealth: float) -> float:
    """The greatest mean (to the bisection's precision, rounded down) that is ruled out as too low; 0 when none is."""
    ruled_out, open_ = 0.0, 1.0
    for _ in range(BISECTIONS):
        mean = (ruled_out + open_) / 2
        if _peak(x, mean) >= log_wealth:
            ruled_out = mean
        else:
            open_ = mean
    return ruled_out


def _peak(x: NDArray[np.float64], mean: float) -> float:
    """Log of the highest capital ever reached in the game against ``mean``."""
    growth = np.log((1 - FRACTIONS) + FRACTIONS * (x[:, None] / mean))  # [n, fractions]
    wealth = np.cumsum(growth, axis=0)
    top = wealth.max(axis=1)
    return float((top + np.log(np.exp(wealth - top[:, None]).mean(axis=1))).max())


def two_shares(hits: int, rows: int, base_hits: int, base_rows: int) -> tuple[float, float]:
    """Difference of two shares and its lower bound (Newcombe 1998, method 10, at 99% one-sided). For diagnosis, not for alarms.

    >>> two_shares(0, 0, 1, 10)
    (0.0, -1.0)
    """
    if rows == 0 or base_rows == 0:
        return 0.0, -1.0
    share, base = hits / rows, base_hits / base_rows
    below, above = share - _wilson(hits, rows, -1), _wilson(base_hits, base_rows, +1) - base
    return share - base, share - base - float(np.hypot(below, above))


def _wilson(hits: int, rows: int, side: int, z: float = 2.326) -> float:
    centre = (hits + z * z / 2) / (rows + z * z)
    half = z / (rows + z * z) * float(np.sqrt(hits * (rows - hits) / rows + z * z / 4))
    return centre + side * half
