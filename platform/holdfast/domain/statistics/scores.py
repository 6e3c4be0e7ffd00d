"""Scores of embeddings: how far from everything known, and where along the directions in which the known rows vary most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIRECTION_COUNT = 4
MOST_ROWS = 4_000
"""Rows a scorer is fitted on, taken at even steps; more change nothing that matters and cost time."""
DECIMALS = 6
"""Scores are rounded, so that another order of summation cannot move one across a bin's edge."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingScorer:
    """Fitted on the rows a version was trained on."""

    centroids: NDArray[np.float64]
    """[labels, hidden]"""
    mean: NDArray[np.float64]
    """[hidden]"""
    directions: NDArray[np.float64]
    """[hidden, directions], unit columns, the largest entry of each positive."""


def halved(embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """Embeddings [n, hidden] at the precision captures are stored in (float16), so that reference and traffic compare as equals."""
    with np.errstate(over="ignore"):  # an overflow becomes infinite, and such a row is then skipped
        stored: NDArray[np.float64] = embeddings.astype(np.float16).astype(np.float64)
    return stored


def fit_embedding(embeddings: NDArray[np.float64], labels: Sequence[str]) -> EmbeddingScorer | None:
    """A scorer of rows [n, hidden]; None when fewer than two are finite or all are the same."""
    keep = np.isfinite(embeddings).all(axis=1)
    rows, names = embeddings[keep], np.array(labels, dtype=object)[keep]
    if len(rows) > MOST_ROWS:
        picked = np.linspace(0, len(rows) - 1, MOST_ROWS).astype(np.int64)
        rows, names = rows[picked], names[picked]
    if len(rows) < 2 or np.ptp(rows, axis=0).max() == 0.0:
        return None
    centroids = np.stack([rows[names == name].mean(axis=0) for name in sorted(set(names.tolist()))])
    mean = rows.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(rows - mean, rowvar=False).reshape(rows.shape[1], rows.shape[1]))
    directions = vectors[:, ::-1][:, :DIRECTION_COUNT]  # eigh gives them in rising order of variance
    signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
    return EmbeddingScorer(centroids, mean, directions * signs)


def distances(scorer: EmbeddingScorer, embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distance [n] of each row to its nearest centroid."""
    squares = (embeddings**2).sum(axis=1)[:, None] + (scorer.centroids**2).sum(axis=1)
    nearest = (squares - 2 * embeddings @ scorer.centroids.T).min(axis=1)
    rounded: NDArray[np.float64] = np.round(np.sqrt(np.maximum(nearest, 0.0)), DECIMALS)
    return rounded


def embedding_scores(scorer: EmbeddingScorer, embeddings: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, 1 + directions]: distance, then the coordinates along the directions."""
    along = np.round((embeddings - scorer.mean) @ scorer.directions, DECIMALS)
    return np.column_stack([distances(scorer, embeddings), along])
