"""Smoothed conformal p-values: the rank of a new row among the calibration rows and every earlier row of the stream.

When calibration rows and stream rows are exchangeable (nothing changed), the p-values are independent and exactly uniform,
whatever the score and however few the calibration rows: the error of a finite reference is carried by the ranks, where a
threshold resampled from the reference would spend several times its false-alarm budget. Scores are binned, so the memory is
one count per bin; the edges must come from rows that are independent of both. Ties are broken by a uniform number.

Source: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World" (2005), section 8.1 (smoothed, online).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

BIN_COUNT = 128
"""Bins of a score; a p-value below 1/128 is then resolved by the tie-breaking number."""
CHUNK = 512
"""Rows ranked at once; bounds the scratch memory to CHUNK x (BIN_COUNT + 1) integers."""


def edges_of(scores: NDArray[np.float64], bin_count: int = BIN_COUNT) -> NDArray[np.float64]:
    """Increasing inner edges [at most bin_count - 1] of ``scores`` [n]; empty when no score is finite.

    Three quarters lie at quantiles, an eighth evenly from each outer tenth to as far beyond the last score as that is from the
    median: rows that a version was trained on are scored milder than others, and would leave nearly all of a tail in one bin.

    >>> edges_of(np.array([0.0, 1.0, 2.0, 3.0]), 2).tolist()
    [1.5]
    """
    finite = scores[np.isfinite(scores)]
    if finite.size == 0:
        return np.empty(0)
    beyond = bin_count // 8
    low, tenth, middle, most, high = np.quantile(finite, [0.0, 0.1, 0.5, 0.9, 1.0])
    inner = bin_count - 2 * beyond
    parts = [np.quantile(finite, np.arange(1, inner) / inner)]
    parts += [np.linspace(most, 2 * high - middle, beyond + 1)[1:], np.linspace(tenth, 2 * low - middle, beyond + 1)[1:]]
    return np.unique(np.concatenate(parts))


def bins_of(scores: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of each score, 0 .. len(edges). Scores must be finite.

    >>> bins_of(np.array([-1.0, 1.5, 9.0]), np.array([1.5])).tolist()
    [0, 1, 1]
    """
    return np.searchsorted(edges, scores, side="right").astype(np.int64)


def tie_of(*parts: str) -> float:
    """A number strictly between 0 and 1 that depends on nothing but its arguments; uniform over them.

    >>> tie_of("req-1", "confidence") == tie_of("req-1", "confidence")
    True
    """
    raw = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()
    return ((int.from_bytes(raw, "big") >> 11) + 0.5) / 2**53


def p_values(
    counts: NDArray[np.int64], bins: NDArray[np.int64], ties: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """p-values of rows in the order they came, and the counts with these rows added.

    Args:
        counts: [bins], rows seen so far, calibration included.
        bins: [n], bin of each new row.
        ties: [n], uniform numbers in 0..1.

    Returns:
        p [n] in 0..1, small where the score is high among what was seen; the new counts [bins].

    >>> p, after = p_values(np.array([3, 0]), np.array([1, 1]), np.array([0.5, 0.5]))
    >>> p.tolist(), after.tolist()
    ([0.125, 0.2], [3, 2])
    """
    p = np.empty(len(bins))
    counts = counts.astype(np.int64, copy=True)
    for begin in range(0, len(bins), CHUNK):
        part = slice(begin, begin + CHUNK)
        p[part], counts = _rank(counts, bins[part], ties[part])
    return p, counts


def _rank(counts: NDArray[np.int64], bins: NDArray[np.int64], ties: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rows = np.arange(len(bins))
    added = np.zeros((len(bins), len(counts)), dtype=np.int64)
    added[rows, bins] = 1
    after = np.cumsum(added, axis=0) + counts  # [n, bins], the row itself included
    above = after.sum(axis=1) - np.cumsum(after, axis=1)[rows, bins]
    same = after[rows, bins]
    return (above + ties * same) / after.sum(axis=1), after[-1]
