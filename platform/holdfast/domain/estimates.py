"""How good the answers of a window are, told from confidence and the labels that came: what the drift report says beside its distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.scorers import Scorers
from holdfast.domain.statistics.label_free import Estimate, Sample, estimate, withdrawn
from holdfast.domain.statistics.scores import embedding_scores, halved
from holdfast.domain.windows import ReferenceWindow, WindowRows

__all__ = ["Estimate", "estimate_accuracy"]


def estimate_accuracy(reference: ReferenceWindow, scorers: Scorers, current: WindowRows) -> Estimate:
    """Share of the current window's answers that are right as a whole, with a 90% interval, or why it cannot be told.

    The density ratio looks at distance, main directions and confidence. Never raises for what stands in the rows.
    """
    before, now = _sample(reference.calibration, scorers), _sample(current, scorers)
    if before is None or now is None:
        labels = sum(label is not None for label in current.labels)
        return withdrawn("the reference or the window has no embeddings that compare", len(current), labels)
    return estimate(before, now)


def _sample(rows: WindowRows, scorers: Scorers) -> Sample | None:
    """Columns of a window; None where its embeddings have another shape than the scorer's."""
    scorer = scorers.embedding
    if scorer is None or rows.embeddings.ndim != 2 or rows.embeddings.shape[1] != len(scorer.mean):
        return None
    stored = halved(rows.embeddings)
    lost: NDArray[np.bool_] = np.asarray(~np.isfinite(stored).all(axis=1))
    scores = embedding_scores(scorer, np.where(lost[:, None], 0.0, stored))
    scores[lost] = np.nan
    confidence = np.asarray(rows.confidences, dtype=np.float64)
    return Sample(confidence=confidence, features=np.column_stack([scores, confidence]), right=_right(rows.predictions, rows.labels))


def _right(predictions: Sequence[str], labels: Sequence[str | None]) -> NDArray[np.float64]:
    return np.array([np.nan if label is None else float(said == label) for said, label in zip(predictions, labels, strict=True)])
