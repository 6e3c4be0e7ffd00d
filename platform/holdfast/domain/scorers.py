"""Score functions of the monitors: fitted on the reference's training rows, ranked against its calibration rows.

They follow from the reference window alone, so they are computed again when needed and never stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.answers import label_counts, leading
from holdfast.domain.captures import Capture
from holdfast.domain.statistics import scores as embedding
from holdfast.domain.statistics.conformal import bins_of, edges_of
from holdfast.domain.windows import ReferenceWindow, WindowRows

NAMES: tuple[str, ...] = ("embedding", "label_mix", "confidence", "quality")
"""The monitors of a task, in the order they are shown."""
NO_BIN = -1
"""Stands for a row that cannot be scored."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scorers:
    """All that the monitors of one version need besides their states."""

    embedding: embedding.EmbeddingScorer | None
    """None when the training rows cannot carry one: the monitor then says that it has not enough data."""
    label_ranks: Mapping[str, int]
    """Leading label of a prediction to its place by falling frequency; one that never led comes after all of them."""
    label_counts: Mapping[str, int]
    """Label to the number of predictions that hold it; the rarest of an answer leads (`answers.leading`)."""
    edges: Mapping[str, tuple[NDArray[np.float64], ...]]
    """Monitor name to the bin edges of each of its components."""
    calibration: Mapping[str, NDArray[np.int64]]
    """Monitor name to counts [components, bins] of the calibration rows."""


def fit(reference: ReferenceWindow) -> Scorers:
    """The scorers of a version. Deterministic."""
    fitted = reference.fitted
    scorer = _fit_embedding(fitted)
    counts = label_counts(fitted.predictions)
    leaders = Counter(leading(said, counts) for said in fitted.predictions)
    ranks = {label: rank for rank, (label, _) in enumerate(sorted(leaders.items(), key=lambda i: (-i[1], i[0])))}
    edges = {
        "embedding": _embedding_edges(scorer, fitted.embeddings),
        "label_mix": (np.arange(len(ranks)) + 0.5,),
        "confidence": _confidence_edges(fitted.confidences),
        "quality": (np.array([0.5]),),
    }
    bare = Scorers(embedding=scorer, label_ranks=ranks, label_counts=counts, edges=edges, calibration={})
    calibration = {name: _counted(bins, edges[name]) for name, bins in _reference_bins(bare, reference.calibration).items()}
    return Scorers(embedding=scorer, label_ranks=ranks, label_counts=counts, edges=edges, calibration=calibration)


def capture_bins(scorers: Scorers, name: str, captures: Sequence[Capture]) -> NDArray[np.int64]:
    """Bins [n, components] of captures for one monitor of the inputs or outputs; NO_BIN where a row cannot be scored."""
    if name == "label_mix":
        return _label_bins(scorers, [c.prediction.label for c in captures])
    if name == "confidence":
        return _confidence_bins(scorers, np.array([c.prediction.confidence for c in captures], dtype=np.float32))
    assert scorers.embedding is not None, "a monitor without a scorer is not fed"
    width = len(scorers.embedding.mean)
    lost = np.full(width, np.nan, dtype=np.float16)
    rows = np.stack([c.embedding if c.embedding.shape == (width,) else lost for c in captures])
    return _embedding_bins(scorers, rows)


def error_bins(wrong: Sequence[bool]) -> NDArray[np.int64]:
    """Bins [n, 1] of the quality monitor: 1 where the answer was wrong."""
    return np.array(wrong, dtype=np.int64)[:, None]


def _reference_bins(scorers: Scorers, rows: WindowRows) -> dict[str, NDArray[np.int64]]:
    wrong = [said != label for said, label in zip(rows.predictions, rows.labels, strict=True) if label is not None]
    found = {
        "label_mix": _label_bins(scorers, rows.predictions),
        "confidence": _confidence_bins(scorers, rows.confidences),
        "quality": error_bins(wrong),
    }
    if scorers.embedding is not None and rows.embeddings.ndim == 2 and rows.embeddings.shape[1] == len(scorers.embedding.mean):
        found["embedding"] = _embedding_bins(scorers, rows.embeddings)
    else:
        found["embedding"] = np.empty((0, len(scorers.edges["embedding"])), dtype=np.int64)
    return found


def _fit_embedding(rows: WindowRows) -> embedding.EmbeddingScorer | None:
    if len(rows) < 2 or rows.embeddings.ndim != 2:
        return None
    values = [said if label is None else label for said, label in zip(rows.predictions, rows.labels, strict=True)]
    counts = label_counts(values)
    names = [leading(value, counts) for value in values]  # a centroid for each label, not for each set of them
    return embedding.fit_embedding(embedding.halved(rows.embeddings), names)


def _embedding_edges(scorer: embedding.EmbeddingScorer | None, rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], ...]:
    if scorer is None:
        return (np.empty(0),)
    found = embedding.embedding_scores(scorer, embedding.halved(rows))
    return tuple(edges_of(column) for column in found.T)


def _confidence_edges(confidences: NDArray[np.float32]) -> tuple[NDArray[np.float64]]:
    doubt = 1.0 - np.asarray(confidences, dtype=np.float64)
    finite = doubt[np.isfinite(doubt)]
    return (edges_of(doubt) if finite.size > 1 and np.ptp(finite) > 0 else np.empty(0),)


def _embedding_bins(scorers: Scorers, rows: NDArray[np.floating]) -> NDArray[np.int64]:
    assert scorers.embedding is not None, "asked only where there is one"
    stored = embedding.halved(rows)
    good = np.asarray(np.isfinite(stored).all(axis=1))
    found = embedding.embedding_scores(scorers.embedding, np.where(good[:, None], stored, 0.0))  # [n, components]
    bins = np.column_stack([bins_of(column, edges) for column, edges in zip(found.T, scorers.edges["embedding"], strict=True)])
    bins[~good] = NO_BIN
    return bins


def _label_bins(scorers: Scorers, labels: Sequence[str]) -> NDArray[np.int64]:
    unseen = len(scorers.label_ranks)
    ranks = [scorers.label_ranks.get(leading(label, scorers.label_counts), unseen) for label in labels]
    return np.array(ranks, dtype=np.int64)[:, None]


def _confidence_bins(scorers: Scorers, confidences: NDArray[np.float32]) -> NDArray[np.int64]:
    doubt = 1.0 - np.asarray(confidences, dtype=np.float64)
    good = np.isfinite(doubt) & (doubt >= 0.0) & (doubt <= 1.0)
    bins = bins_of(np.where(good, doubt, 0.0), scorers.edges["confidence"][0])
    return np.where(good, bins, NO_BIN)[:, None]


def _counted(bins: NDArray[np.int64], edges: tuple[NDArray[np.float64], ...]) -> NDArray[np.int64]:
    """Counts [components, bins] of rows [n, components]; rows that could not be scored are left out."""
    width = max(len(e) for e in edges) + 1
    good = bins[(bins != NO_BIN).all(axis=1)]
    return np.stack([np.bincount(column, minlength=width) for column in good.T]).astype(np.int64)
