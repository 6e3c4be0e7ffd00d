"""What each monitor bets on the ranks of its events: on more errors, on strange rows, or on a change of any kind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.statistics import e_detector

MOST_ERRORS = 0.99
"""Error frequency above which a bet on yet more errors is not worth making; keeps its odds finite."""


def bet_count(name: str) -> int:
    """How many bets a monitor mixes for each of its components."""
    if name == "quality":
        return len(e_detector.RATIOS)
    if name == "novelty":
        return len(e_detector.LADDERS) * len(e_detector.LADDER_SHARES)
    return 2 * len(e_detector.STEPS) + 1


def bets_on(
    name: str, p: NDArray[np.float64], bins: NDArray[np.int64], counts: NDArray[np.int64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log bets [n, components, bets] on p-values p [n, components], and the weights of the learned bet after them.

    Args:
        bins: [n, components], of the events; counts [components, bins] are those before them.
        weights: [components, cells]; a monitor without a learned bet leaves them as they are.
    """
    if name == "quality":
        return e_detector.odds_bets(p, _error_rates(counts[0], bins[:, 0])), weights
    if name == "novelty":
        return e_detector.ladder_bets(p), weights
    learned, weights = e_detector.learned_bets(p, weights)
    return np.concatenate([e_detector.step_bets(p), learned], axis=-1), weights


def _error_rates(counts: NDArray[np.int64], bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the error frequency would be with each event [n] wrong, from the rows before it: a wrong one always ranks within it."""
    wrong = counts[1] + np.concatenate([[0], np.cumsum(bins)[:-1]])
    rows = counts.sum() + np.arange(len(bins))
    rates: NDArray[np.float64] = np.minimum((wrong + 1.0) / (rows + 1.0), MOST_ERRORS)
    return rates
