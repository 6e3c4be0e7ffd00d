"""Which captures are asked for: drawn by a seeded hash, the doubtful and the novel ones more often, none of them almost never.

A period's rows are drawn one after the other, each time from the same probabilities: three quarters of each are uniform, so no weight
exceeds 4/3, the rest follows doubt and novelty. Every draw's weighted loss then has the period's loss as its mean, whatever was drawn
before, and lies between 0 and the greatest weight: what a betting confidence sequence needs (decision 0020).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.captures import Capture
from holdfast.domain.review import CONTROL_SHARE, Period, ReviewRow
from holdfast.domain.scorers import Scorers
from holdfast.domain.statistics.scores import distances, halved

UNIFORM_SHARE = 0.75
"""Share of each probability that is the same for all rows; 1 / this is the greatest weight. Half of each gave wider bounds at low error
rates (decision 0020)."""
NOVELTY_SHARE = 1 / 3
"""Share of the rest that follows novelty; what remains follows doubt."""


def choose(since: Sequence[Capture], before: Sequence[Capture], scorers: Scorers, *, row_count: int, seed: str) -> tuple[ReviewRow, ...]:
    """About ``row_count`` different rows of the two periods, mixed in the order they are to be asked; all where there are no more.

    The same captures, scorers and seed give the same rows.
    """
    control = min(len(before), round(row_count * CONTROL_SHARE))
    chosen = [
        *_drawn("since", since, scorers, row_count - control, seed),
        *_drawn("before", before, scorers, control, seed),
    ]
    return tuple(row for _, row in sorted(chosen, key=lambda item: item[0]))


def probabilities(captures: Sequence[Capture], scorers: Scorers) -> NDArray[np.float64]:
    """Probability [n] of each capture to be the next drawn; at least ``UNIFORM_SHARE / n``."""
    doubt = np.array([1.0 - c.prediction.confidence for c in captures])
    doubt = np.sqrt(np.where(np.isfinite(doubt), np.clip(doubt, 0.0, 1.0), 1.0))  # the best odds follow the root of the chance of error
    wanted = (1.0 - NOVELTY_SHARE) * _shares(doubt) + NOVELTY_SHARE * _shares(_novelty(captures, scorers))
    mixed: NDArray[np.float64] = UNIFORM_SHARE / len(captures) + (1.0 - UNIFORM_SHARE) * wanted
    mixed /= mixed.sum()
    return mixed


def _drawn(
    period: Period, captures: Sequence[Capture], scorers: Scorers, wanted: int, seed: str
) -> list[tuple[tuple[float, str, int], ReviewRow]]:
    """Rows with their place in the queue: periods are mixed evenly, whatever their sizes."""
    if not captures or wanted <= 0:
        return []
    odds = probabilities(captures, scorers)
    found, weights = _draw(odds, min(wanted, len(captures)), seed, period), 1.0 / (len(captures) * odds)
    return [
        (((place + 0.5) / len(found), period, place), _row(captures[index], period, tuple(draws), float(weights[index])))
        for place, (index, draws) in enumerate(found.items())
    ]


def _draw(odds: NDArray[np.float64], wanted: int, seed: str, period: str) -> dict[int, list[int]]:
    """Index to the draws at which it came up, until ``wanted`` different ones have; in order of first coming up."""
    edges, found = np.cumsum(odds), dict[int, list[int]]()
    draw = 0
    while len(found) < wanted:
        index = min(int(np.searchsorted(edges, _chance(seed, period, draw), side="right")), len(odds) - 1)
        found.setdefault(index, []).append(draw)
        draw += 1
    return found


def _row(capture: Capture, period: Period, draws: tuple[int, ...], weight: float) -> ReviewRow:
    return ReviewRow(
        capture_id=capture.capture_id, seq=capture.seq, period=period, draws=draws, weight=weight, said=capture.prediction.label,
        confidence=capture.prediction.confidence,
    )  # fmt: skip


def _chance(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing but the parts."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _novelty(captures: Sequence[Capture], scorers: Scorers) -> NDArray[np.float64]:
    """Rank [n], 0..1, of each capture's distance to what was known; 1 where the embedding cannot be read."""
    if scorers.embedding is None:
        return np.ones(len(captures))
    width = len(scorers.embedding.mean)
    rows = halved(np.stack([c.embedding if c.embedding.shape == (width,) else np.full(width, np.nan) for c in captures]))
    good = np.asarray(np.isfinite(rows).all(axis=1))
    far = np.where(good, distances(scorers.embedding, np.where(good[:, None], rows, 0.0)), np.inf)
    return np.asarray(np.searchsorted(np.sort(far), far, side="right") / len(far), dtype=np.float64)


def _shares(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    total = float(scores.sum())
    return scores / total if total > 0 else np.full(len(scores), 1.0 / len(scores))
