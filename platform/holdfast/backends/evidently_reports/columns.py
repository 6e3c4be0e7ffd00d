"""A window as the table that Evidently compares: text descriptors, answers, and the embedding's main directions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2

from holdfast.domain.answers import label_counts, labels_in, leading, of_several, row_score
from holdfast.domain.tasks import Metric
from holdfast.domain.windows import WindowRows

MAX_ROWS = 10_000
"""Of each window. A report costs about 5 CPU seconds at this size, and shows no more at a larger one."""
MIN_ROWS = 30
"""Of each window. Below, a comparison says nothing and nothing is computed (Evidently itself calls one row `not drifted`)."""
COMPONENTS = 5
FALSE_DRIFT = 0.01
"""Probability that one unchanged column is shown as drifted."""
SHOWN_LABELS = 12
"""Labels of sets, or fields, whose presence is a column each: the most frequent of the reference."""
NUMBERS = ("confidence", "text_length", "word_count", "non_letter_share", "unseen_word_share")
METRICS: tuple[Metric, ...] = ("accuracy", "f1")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """Two tables of the same columns, ready to compare."""

    reference: pd.DataFrame
    current: pd.DataFrame
    columns: tuple[str, ...]
    """Columns with enough finite values on both sides."""
    thresholds: dict[str, float]
    """Jensen-Shannon distance above which a column is shown as drifted."""
    labelled_count: int
    """Labelled rows of the current window."""
    quality: Mapping[str, float] | None
    """Of sets and spans, which Evidently does not judge: `accuracy` (right as a whole) and `f1` (mean of a row) of the current window."""


def compare(reference: WindowRows, current: WindowRows) -> Comparison:
    """Build both tables. Rows are bounded by taking every k-th, so that a window is thinned and not cut."""
    before, now = _thin(reference), _thin(current)
    counts = Counter(word for text in before.texts for word in set(_words(text)))
    axes = _axes(before.embeddings, now.embeddings)
    # A reference row may not vouch for its own words: there a word is seen when a second row has it too.
    known = label_counts(before.predictions)
    tables = [_table(rows, {w for w, n in counts.items() if n >= least}, axes) for rows, least in ((before, 2), (now, 1))]
    several = of_several((*before.predictions, *now.predictions))
    if several:
        tables = [_spread(table, rows, known) for table, rows in zip(tables, (before, now), strict=True)]
    columns = tuple(c for c in tables[0].columns if c not in ("text", "target") and all(c in t and _usable(t[c]) for t in tables))
    thresholds = {c: _threshold(tables[0][c].dropna(), tables[1][c].dropna()) for c in columns}
    labelled = int(tables[1]["target"].notna().sum())
    return Comparison(reference=tables[0], current=tables[1], columns=columns, thresholds=thresholds, labelled_count=labelled,
        quality=_quality(now) if several else None,
    )  # fmt: skip


def _thin(rows: WindowRows) -> WindowRows:
    if len(rows) <= MAX_ROWS:
        return rows
    kept = np.linspace(0, len(rows) - 1, MAX_ROWS).astype(int)
    return WindowRows(
        texts=tuple(rows.texts[i] for i in kept),
        predictions=tuple(rows.predictions[i] for i in kept),
        confidences=rows.confidences[kept],
        embeddings=rows.embeddings[kept],
        labels=tuple(rows.labels[i] for i in kept),
    )


def _table(rows: WindowRows, vocabulary: set[str], axes: NDArray[np.float64]) -> pd.DataFrame:
    """One row a capture. The descriptors are ours: Evidently's word list for unknown words is a download, and its `Z-test` on a share
    cannot be compared with the other columns."""
    words = [_words(text) for text in rows.texts]
    unseen = [sum(w not in vocabulary for w in each) / len(each) if each else 0.0 for each in words]
    table = pd.DataFrame(
        {
            "text": pd.Series(list(rows.texts), dtype=object),
            "prediction": pd.Series(list(rows.predictions), dtype=object),
            "target": pd.Series(list(rows.labels), dtype=object),
            "confidence": np.asarray(rows.confidences, dtype=np.float64),
            "unseen_word_share": np.asarray(unseen, dtype=np.float64),
        }
    )
    table["text_length"] = [float(len(text)) for text in rows.texts]
    table["word_count"] = [float(len(each)) for each in words]
    table["non_letter_share"] = [_non_letter_share(text) for text in rows.texts]
    places = _project(rows.embeddings, axes)
    for number in range(places.shape[1]):
        table[f"embedding_pc{number + 1}"] = places[:, number]
    return table.replace([np.inf, -np.inf], np.nan)


def _spread(table: pd.DataFrame, rows: WindowRows, known: Counter[str]) -> pd.DataFrame:
    """Answers that are sets or spans as columns that can be compared: the leading label, how many labels, and which of the frequent."""
    held = [labels_in(said) for said in rows.predictions]
    made = {"answer_size": [float(len(labels)) for labels in held]}
    frequent = sorted(known, key=lambda label: (-known[label], label))[:SHOWN_LABELS]
    made |= {f"says {label}": [float(label in labels) for labels in held] for label in frequent}
    return table.assign(
        prediction=pd.Series([leading(said, known) for said in rows.predictions], dtype=object),
        target=pd.Series([None if label is None else leading(label, known) for label in rows.labels], dtype=object),
        **made,
    )


def _quality(rows: WindowRows) -> dict[str, float]:
    pairs = [(said, label) for said, label in zip(rows.predictions, rows.labels, strict=True) if label is not None]
    if len(pairs) < MIN_ROWS:
        return {}
    return {name: float(np.mean([row_score(*pair, name) for pair in pairs])) for name in METRICS}


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _non_letter_share(text: str) -> float:
    return sum(not c.isalpha() and not c.isspace() for c in text) / len(text) if text else 0.0


def _axes(before: NDArray[np.float32], now: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean, then the main directions: [1 + components, hidden]. Rows with a non-finite value are left out.

    Both windows together, not the reference alone: directions fitted on one side fit that side too well, and an unchanged window
    would look narrower. Together, unchanged windows are exchangeable.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (before, now)]  # [n, hidden] each
    if any(side.ndim != 2 or side.shape[1] == 0 for side in sides) or sides[0].shape[1] != sides[1].shape[1]:
        return np.zeros((0, 0))
    values = np.vstack(sides)
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < 2:
        return np.zeros((0, 0))
    mean = values.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov(values - mean, rowvar=False).reshape(values.shape[1], -1))  # columns, smallest first
    main = directions[:, ::-1][:, :COMPONENTS].T  # [components, hidden]
    return np.vstack([mean, main])


def _project(embeddings: NDArray[np.float32], axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, components]; no column at all when the reference has no directions or another width."""
    values = np.asarray(embeddings, dtype=np.float64)
    if values.ndim != 2 or axes.size == 0 or values.shape[1] != axes.shape[1]:
        return np.zeros((len(values), 0))
    with np.errstate(invalid="ignore", over="ignore"):  # a row with NaN or inf becomes NaN, which is left out later
        return np.asarray((values - axes[0]) @ axes[1:].T, dtype=np.float64)


def _usable(column: Any) -> bool:
    return int(column.notna().sum()) >= MIN_ROWS


def _threshold(before: Any, now: Any) -> float:
    """The distance that an unchanged column exceeds with probability FALSE_DRIFT.

    To second order the Jensen-Shannon divergence of two samples of one distribution over k occupied cells, of n and m rows, is
    ``chi2(k - 1) (1/n + 1/m) / 8``; the distance is its root (Menendez et al., The Jensen-Shannon divergence, 1997). Evidently's own
    fixed 0.1 is crossed by unchanged columns of a few hundred rows. It depends on the reference and the sizes alone: the UI draws one line
    for each threshold.
    """
    cells = _cells(before, len(before) + len(now))
    spread = float(chi2.ppf(1 - FALSE_DRIFT, max(cells - 1, 1))) * (1 / len(before) + 1 / len(now)) / 8
    return round(float(np.sqrt(spread)), 4)


def _cells(before: Any, row_count: int) -> int:
    """Cells that an unchanged column may occupy, as Evidently bins it: by value, or above 20 distinct numbers by Sturges' rule."""
    distinct = int(before.nunique())
    if before.dtype == object or distinct <= 20:
        return distinct
    return int(np.ceil(np.log2(row_count))) + 1
