"""Score functions of the monitors: fitted on the reference's training rows, ranked against its calibration rows.

They follow from the reference window alone, so they are computed again when needed and never stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.answers import label_counts, leading
from holdfast.domain.captures import Capture
from holdfast.domain.descriptors import DESCRIPTORS, SLICE_BUCKETS, described, descriptor_edges, slice_bucket
from holdfast.domain.statistics import fourier_witness
from holdfast.domain.statistics import scores as embedding
from holdfast.domain.statistics.conformal import BIN_COUNT, bins_of, edges_of
from holdfast.domain.statistics.fourier_witness import FourierWitness
from holdfast.domain.statistics.novelty import NoveltyScorer, fit_novelty, novelty_scores
from holdfast.domain.symptoms import Lexicon, lexicon_of
from holdfast.domain.windows import ReferenceWindow, WindowRows

NAMES: tuple[str, ...] = ("embedding", "embedding_shift", "novelty", "text", "slice_mix", "label_mix", "confidence", "quality")
"""The monitors of a task, in the order they are shown."""
OF_CAPTURES = NAMES[:-1]
QUALITY_SHARE = 0.5
"""Of a task's budget, for the monitor that retrainings follow; the others have the rest alike (decision 0019)."""
"""Those of inputs and outputs; the last reads labels."""
NO_BIN = -1
"""Stands for a row that cannot be scored."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scorers:
    """All that the monitors of one version need besides their states."""

    embedding: embedding.EmbeddingScorer | None
    """None when the training rows cannot carry one: the monitor then says that it has not enough data."""
    witness: FourierWitness | None
    novelty: NoveltyScorer | None
    lexicon: Lexicon
    label_ranks: Mapping[str, int]
    """Leading label of a prediction to its place by falling frequency; one that never led comes after all of them."""
    label_counts: Mapping[str, int]
    """Label to the number of predictions that hold it; the rarest of an answer leads (`answers.leading`)."""
    edges: Mapping[str, tuple[NDArray[np.float64], ...]]
    """Monitor name to the bin edges of each of its components."""
    calibration: Mapping[str, NDArray[np.int64]]
    """Monitor name to counts [components, bins] of the calibration rows."""


def budget_share(name: str) -> float:
    """Share of its task's budget of false alarms that a monitor has; those of all sum to 1.

    >>> budget_share("quality"), round(sum(map(budget_share, NAMES)), 9)
    (0.5, 1.0)
    """
    return QUALITY_SHARE if name == "quality" else (1.0 - QUALITY_SHARE) / (len(NAMES) - 1)


def fit(reference: ReferenceWindow) -> Scorers:
    """The scorers of a version. Deterministic."""
    fitted = reference.fitted
    counts = label_counts(fitted.predictions)
    leaders = Counter(leading(said, counts) for said in fitted.predictions)
    bare = Scorers(
        embedding=_fit_embedding(fitted), witness=_fit_witness(fitted, reference.calibration), novelty=_fit_novelty(fitted),
        lexicon=lexicon_of(fitted.texts), label_counts=counts, edges={}, calibration={},
        label_ranks={label: rank for rank, (label, _) in enumerate(sorted(leaders.items(), key=lambda i: (-i[1], i[0])))},
    )  # fmt: skip
    bare = replace(bare, edges=_edges(bare, fitted))
    found = {name: _counted(bins, bare.edges[name]) for name, bins in _reference_bins(bare, reference.calibration).items()}
    none = np.zeros((fourier_witness.COMPONENTS, BIN_COUNT), dtype=np.int64)
    found["embedding_shift"] = none if bare.witness is None else fourier_witness.fresh(bare.witness).counts
    return replace(bare, calibration=found)


def capture_bins(scorers: Scorers, name: str, captures: Sequence[Capture]) -> NDArray[np.int64]:
    """Bins [n, components] of captures for one monitor of the inputs or outputs; NO_BIN where a row cannot be scored."""
    if name == "label_mix":
        return _label_bins(scorers, [c.prediction.label for c in captures])
    if name == "slice_mix":
        return np.array([slice_bucket(c.slices) if c.slices else NO_BIN for c in captures], dtype=np.int64)[:, None]
    if name == "text":
        return _text_bins(scorers, [c.text for c in captures])
    confidences = np.array([c.prediction.confidence for c in captures], dtype=np.float32)
    if name == "confidence":
        return _confidence_bins(scorers, confidences)
    rows = _stacked(scorers, captures)
    return _embedding_bins(scorers, rows) if name == "embedding" else _novelty_bins(scorers, rows, confidences)


def capture_features(scorers: Scorers, captures: Sequence[Capture]) -> NDArray[np.float64]:
    """Features [n, width] of captures for `embedding_shift`; NaN where a row cannot be scored."""
    assert scorers.witness is not None, "a monitor without a scorer is not fed"
    stored = embedding.halved(_stacked(scorers, captures))
    good = np.asarray(np.isfinite(stored).all(axis=1))
    found = fourier_witness.features(scorers.witness, np.where(good[:, None], stored, 0.0))
    return np.where(good[:, None], found, np.nan)


def error_bins(wrong: Sequence[bool]) -> NDArray[np.int64]:
    """Bins [n, 1] of the quality monitor: 1 where the answer was wrong."""
    return np.array(wrong, dtype=np.int64)[:, None]


def _edges(scorers: Scorers, fitted: WindowRows) -> dict[str, tuple[NDArray[np.float64], ...]]:
    return {
        "embedding": _embedding_edges(scorers.embedding, fitted.embeddings),
        "embedding_shift": (np.arange(BIN_COUNT - 1.0),) if scorers.witness is not None else (np.empty(0),),
        "novelty": _novelty_edges(scorers.novelty, fitted),
        "text": descriptor_edges(described(fitted.texts, scorers.lexicon, known=True)),
        "slice_mix": (np.arange(1, SLICE_BUCKETS) - 0.5,),
        "label_mix": (np.arange(len(scorers.label_ranks)) + 0.5,),
        "confidence": _confidence_edges(fitted.confidences),
        "quality": (np.array([0.5]),),
    }


def _reference_bins(scorers: Scorers, rows: WindowRows) -> dict[str, NDArray[np.int64]]:
    """Bins of the calibration rows; none for slices, which a reference does not have: they are ranked among the traffic alone."""
    wrong = [said != label for said, label in zip(rows.predictions, rows.labels, strict=True) if label is not None]
    found = {
        "text": _text_bins(scorers, rows.texts),
        "slice_mix": np.empty((0, 1), dtype=np.int64),
        "label_mix": _label_bins(scorers, rows.predictions),
        "confidence": _confidence_bins(scorers, rows.confidences),
        "quality": error_bins(wrong),
    }
    fits = scorers.embedding is not None and rows.embeddings.ndim == 2 and rows.embeddings.shape[1] == len(scorers.embedding.mean)
    none = {name: np.empty((0, len(scorers.edges[name])), dtype=np.int64) for name in ("embedding", "novelty")}
    found |= none if not fits else {"embedding": _embedding_bins(scorers, rows.embeddings)}
    if fits:
        found["novelty"] = _novelty_bins(scorers, rows.embeddings, rows.confidences) if scorers.novelty else none["novelty"]
    return found


def _fit_embedding(rows: WindowRows) -> embedding.EmbeddingScorer | None:
    if len(rows) < 2 or rows.embeddings.ndim != 2:
        return None
    return embedding.fit_embedding(embedding.halved(rows.embeddings), _classes(rows))


def _fit_novelty(rows: WindowRows) -> NoveltyScorer | None:
    if len(rows) < 2 or rows.embeddings.ndim != 2:
        return None
    return fit_novelty(embedding.halved(rows.embeddings), _doubts(rows.confidences), _classes(rows))


def _fit_witness(fitted: WindowRows, calibration: WindowRows) -> FourierWitness | None:
    """None also when the calibration rows are of another width."""
    if len(fitted) < 2 or fitted.embeddings.ndim != 2 or calibration.embeddings.shape[1:] != fitted.embeddings.shape[1:]:
        return None
    rows = [embedding.halved(one.embeddings) for one in (fitted, calibration)]
    return fourier_witness.fit(*(one[np.isfinite(one).all(axis=1)] for one in rows))


def _classes(rows: WindowRows) -> list[str]:
    values = [said if label is None else label for said, label in zip(rows.predictions, rows.labels, strict=True)]
    counts = label_counts(values)
    return [leading(value, counts) for value in values]  # a centroid for each label, not for each set of them


def _doubts(confidences: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 - confidence; NaN where that is no probability."""
    doubts = 1.0 - np.asarray(confidences, dtype=np.float64)
    return np.where((doubts >= 0.0) & (doubts <= 1.0), doubts, np.nan)


def _stacked(scorers: Scorers, captures: Sequence[Capture]) -> NDArray[np.float16]:
    assert scorers.embedding is not None, "a monitor without a scorer is not fed"
    width = len(scorers.embedding.mean)
    lost = np.full(width, np.nan, dtype=np.float16)
    return np.stack([c.embedding if c.embedding.shape == (width,) else lost for c in captures])


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
    doubts = _doubts(confidences)
    bins = bins_of(np.nan_to_num(doubts), scorers.edges["confidence"][0])
    return np.where(np.isfinite(doubts), bins, NO_BIN)[:, None]


def _novelty_edges(scorer: NoveltyScorer | None, rows: WindowRows) -> tuple[NDArray[np.float64]]:
    if scorer is None:
        return (np.empty(0),)
    stored, doubts = embedding.halved(rows.embeddings), _doubts(rows.confidences)
    good = np.isfinite(stored).all(axis=1) & np.isfinite(doubts)
    return (edges_of(novelty_scores(scorer, stored[good], doubts[good])),)


def _novelty_bins(scorers: Scorers, rows: NDArray[np.floating], confidences: NDArray[np.float32]) -> NDArray[np.int64]:
    assert scorers.novelty is not None, "asked only where there is one"
    stored, doubts = embedding.halved(rows), _doubts(confidences)
    good = np.asarray(np.isfinite(stored).all(axis=1) & np.isfinite(doubts))
    found = novelty_scores(scorers.novelty, np.where(good[:, None], stored, 0.0), np.where(good, doubts, 0.0))
    return np.where(good, bins_of(found, scorers.edges["novelty"][0]), NO_BIN)[:, None]


def _text_bins(scorers: Scorers, texts: Sequence[str]) -> NDArray[np.int64]:
    found, edges = described(texts, scorers.lexicon), scorers.edges["text"]
    return np.column_stack([bins_of(found[:, i], edges[i]) for i in range(len(DESCRIPTORS))])


def _counted(bins: NDArray[np.int64], edges: tuple[NDArray[np.float64], ...]) -> NDArray[np.int64]:
    """Counts [components, bins] of rows [n, components]; rows that could not be scored are left out."""
    width = max(len(e) for e in edges) + 1
    good = bins[(bins != NO_BIN).all(axis=1)]
    return np.stack([np.bincount(column, minlength=width) for column in good.T]).astype(np.int64)
