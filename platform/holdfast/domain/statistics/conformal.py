"""Smoothed conformal p-values: the rank of a new row among the calibration rows and every earlier row of the stream.

When calibration rows and stream rows are exchangeable (nothing changed), the p-values are independent and exactly uniform,
whatever the score and however few the calibration rows: the error of a finite reference is carried by the ranks, where a
threshold resampled from the reference would spend several times its false-alarm budget. Scores are binned, so the memory is
one count per bin; the edges must come from rows that are independent of both. Ties are broken by a uniform number.

Source: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World" (2005), section 8.1 (smoothed, online).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BIN_COUNT = 128
"""Bins of a score; a p-value below 1/128 is then resolved by the tie-breaking number."""
CHUNK = 64
"""Rows ranked at once, each against each; more cost more comparisons, fewer more calls."""


def edges_of(scores: NDArray[np.float64], bin_count: int = BIN_COUNT) -> NDArray[np.float64]:
    """Increasing inner edges [at most bin_count - 1] at the quantiles of ``scores`` [n]; empty when no score is finite.

    >>> edges_of(np.array([0.0, 1.0, 2.0, 3.0]), 2).tolist()
    [1.5]
    """
    finite = scores[np.isfinite(scores)]
    if finite.size == 0:
        return np.empty(0)
    return np.unique(np.quantile(finite, np.arange(1, bin_count) / bin_count))


def bins_of(scores: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of each score, 0 .. len(edges). Scores must be finite.

    >>> bins_of(np.array([-1.0, 1.5, 9.0]), np.array([1.5])).tolist()
    [0, 1, 1]
    """
    return np.searchsorted(edges, scores, side="right").astype(np.int64)


def ties_of(keys: Sequence[str], count: int) -> NDArray[np.float64]:
    """Numbers [keys, count] strictly between 0 and 1 that depend on nothing but their key; uniform over the keys.

    >>> ties_of(["req-1 confidence"], 2).shape, (ties_of(["a", "b"], 2)[1] == ties_of(["b"], 2)[0]).all()
    ((1, 2), np.True_)
    """
    raw = b"".join(hashlib.shake_128(key.encode()).digest(8 * count) for key in keys)
    whole = np.frombuffer(raw, dtype=">u8").astype(np.uint64).reshape(len(keys), count)
    return ((whole >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53


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
    above_before = counts.sum() - np.cumsum(counts)  # [bins], rows in higher bins
    earlier = np.tri(len(bins), k=-1, dtype=np.bool_)  # [n, n], of row i the rows j < i of this chunk
    above = above_before[bins] + (earlier & (bins[None, :] > bins[:, None])).sum(axis=1)
    same = counts[bins] + (earlier & (bins[None, :] == bins[:, None])).sum(axis=1) + 1  # the row itself included
    rows = counts.sum() + np.arange(1, len(bins) + 1)
    return (above + ties * same) / rows, counts + np.bincount(bins, minlength=len(counts))
