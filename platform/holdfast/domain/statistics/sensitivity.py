"""The smallest change that a detector would by now have found nine times in ten, had it been there since the detector began.

Of a ranked score the change is a share of rows that come to lie where few known rows do ("high" rows: wrong answers; the highest
1% of a score). With n rows after m known ones, a share ``base`` of those high, high rows rank within ``h``, the share of high
rows so far, which the change itself raises: that, not the number of bets, limits what a small reference can ever show. The
expected log evidence is summed over the stream for each bet, less 1.28 of its deviations, less the logarithm of the number of
components; the price of mixing bets is about what the many places a change may begin at give back. So it is a guide, rather
too large than too small, and no guarantee; tests hold it against simulated streams.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.statistics import e_detector, fourier_witness

SURE = 1.2816
"""Normal quantile of 0.9."""
TAIL = 0.01
"""Share of known rows that lie beyond what counts as high on a score."""
POINTS = 48
"""Places of a stream at which its growth is computed."""
MOST_ROWS = 10_000_000
"""More rows are not asked for."""


BREAKS = np.unique([0.0, 1.0, *(theta for theta, _ in e_detector.STEPS), *(theta for one in e_detector.LADDERS for theta, _ in one)])
"""Where a bet on p-values steps; between two of them it is constant."""
Bets = Literal["steps", "ladders", "odds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One detector and what it ranks among."""

    known_rows: int
    base: float
    """Share of known rows that are high, 0..1."""
    log_threshold: float
    components: int = 1
    bets: Bets = "steps"


def smallest_rise(watched: Watched, rows: int) -> float | None:
    """The least rise of the share of high rows that would have been found within ``rows``; None when none would.

    >>> labels = Watched(known_rows=1_000, base=0.08, log_threshold=math.log(20_000), bets="odds")
    >>> [round(smallest_rise(labels, n) or 1, 2) for n in (10, 100, 1_000)]
    [0.77, 0.22, 0.09]
    """
    return _least(lambda rise: _found(watched, rows, watched.base + rise), 1.0 - watched.base)


def rows_to_see(watched: Watched, rise: float) -> int | None:
    """How many rows it takes to find a rise of the share of high rows; None when no number does with so few known rows."""
    if watched.base + rise >= 1.0 or not _found(watched, MOST_ROWS, watched.base + rise):
        return None
    low, high = 1, MOST_ROWS
    while high - low > max(1, low // 100):
        middle = math.isqrt(low * high) if high > 4 * low else (low + high) // 2
        low, high = (low, middle) if _found(watched, middle, watched.base + rise) else (middle, high)
    return high


def smallest_shift(witness: fourier_witness.FourierWitness, log_threshold: float, rows: int) -> float | None:
    """The least length of a shift of all rows, in deviations along the main directions, found within ``rows``; None when none."""
    lengths = [length for length in fourier_witness.SCALES if rows >= 2 * length]
    found = [_least(partial(_shift_found, witness, log_threshold, length), 16.0) for length in lengths]
    return min((one for one in found if one is not None), default=None)


def _least(found: Callable[[float], bool], most: float) -> float | None:
    """The least value up to ``most`` that is found, by halving."""
    if most <= 0.0 or not found(most):
        return None
    low, high = 0.0, most
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def _found(watched: Watched, rows: int, share: float) -> bool:
    if rows < 1:
        return False
    ends = np.unique(np.geomspace(1, rows, POINTS).astype(np.int64))
    steps = np.diff(ends, prepend=0)
    before = ends - steps / 2  # rows of the stream before the middle of each step
    high = (watched.known_rows * watched.base + before * share + 0.5) / (watched.known_rows + before + 1.0)
    mean, variance = _odds_growth(high, share) if watched.bets == "odds" else _step_growth(high, share, watched.bets)
    total, spread = np.cumsum(mean * steps[:, None], axis=0), np.sqrt(np.cumsum(variance * steps[:, None], axis=0))
    return bool((total - SURE * spread).max() >= watched.log_threshold + math.log(watched.components))


def _odds_growth(high: NDArray[np.float64], share: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance [points, bets] of the log bet on a row that is wrong with probability ``share``."""
    ratio, high = np.array(e_detector.RATIOS), np.minimum(high, 0.99)[:, None]
    q = high * ratio / (1 - high + high * ratio)
    one, other = np.log(q / high), np.log((1 - q) / (1 - high))
    return share * one + (1 - share) * other, share * (1 - share) * (one - other) ** 2


def _step_growth(high: NDArray[np.float64], share: float, bets: Bets) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same of bets on p-values, where high rows rank evenly within ``high`` and the others evenly above it."""
    high = np.minimum(high, 1.0 - 1e-9)[:, None]
    below = share * np.minimum(1.0, BREAKS / high) + (1 - share) * np.maximum(0.0, (BREAKS - high) / (1 - high))
    chance = np.diff(below, axis=1)  # [points, cells]
    inside = (BREAKS[1:] + BREAKS[:-1]) / 2
    won = e_detector.ladder_bets(inside) if bets == "ladders" else e_detector.step_bets(inside[:, None], two_sided=False)[:, 0]
    mean = chance @ won
    return mean, np.maximum(chance @ won**2 - mean**2, 0.0)


def _shift_found(witness: fourier_witness.FourierWitness, log_threshold: float, length: int, shift: float) -> bool:
    noise = len(witness.deviations) * (1.0 / length + 1.0 / witness.known_rows)
    seen = shift**2 / math.sqrt(shift**2 + noise)  # what is left of it along a direction learned from one block
    known = len(witness.calibration)
    here = np.arange(length)
    part = seen * known / (known + here)  # its own earlier rows rank beside it
    a = np.array(fourier_witness.TILTS)
    mean = 1.7 * part.sum() * a + length * np.log(np.sin(np.pi * a) / (np.pi * a))
    spread = a * math.pi / math.sqrt(3.0) * math.sqrt(length)
    price = math.log(fourier_witness.COMPONENTS)
    return bool((mean - SURE * spread).max() >= log_threshold + price)
