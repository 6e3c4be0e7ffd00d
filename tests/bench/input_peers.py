"""Peers of the monitors on real texts: each looks once, at the last event of a stream, at a level of 5%."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from holdfast.domain.windows import WindowRows

LEVEL = 0.05
PERMUTATIONS = 100
WASSERSTEIN = 0.1
"""Evidently's threshold on the distance in deviations of the reference, above 1,000 reference rows."""
Peer = Callable[[WindowRows, WindowRows, np.random.Generator], bool]


def columns(rows: WindowRows) -> NDArray[np.float64]:
    """Embedding columns, confidence and length of the text."""
    return np.column_stack([rows.embeddings, rows.confidences, [len(text) for text in rows.texts]]).astype(np.float64)


def evidently_rule(reference: WindowRows, current: WindowRows, _: np.random.Generator) -> bool:
    """Evidently's default for a data set, as documented: half of the columns drifted. Numeric columns and the answer.

    Above 1,000 reference rows a column drifted at a normalised Wasserstein distance of 0.1 (numbers) or a Jensen-Shannon distance
    of 0.1 (answers); else at p < 0.05 of Kolmogorov-Smirnov, or of chi-squared.
    """
    one, other, many = columns(reference), columns(current), len(reference) > 1_000
    if many:
        spread = np.maximum(one.std(axis=0), 1e-9)
        far = [stats.wasserstein_distance(a, b) for a, b in zip(one.T, other.T, strict=True)] / spread >= WASSERSTEIN
    else:
        far = stats.ks_2samp(one, other, axis=0, method="asymp").pvalue < LEVEL
    known, now = _shares(reference, current)
    middle = (known + now) / 2
    answers = np.sqrt((stats.entropy(known, middle, base=2) + stats.entropy(now, middle, base=2)) / 2) >= 0.1 if many else False
    return bool(int(np.sum(far)) + int(answers) >= (one.shape[1] + 1) / 2)


def ks_bonferroni(reference: WindowRows, current: WindowRows, _: np.random.Generator) -> bool:
    """Kolmogorov-Smirnov on every column, the level shared by all of them."""
    p = stats.ks_2samp(columns(reference), columns(current), axis=0, method="asymp").pvalue
    return bool(p.min() * len(p) <= LEVEL)


def ks_confidence(reference: WindowRows, current: WindowRows, _: np.random.Generator) -> bool:
    """Kolmogorov-Smirnov on the top probability alone: the univariate test on the model's output of Rabanser et al. (2019)."""
    return bool(stats.ks_2samp(reference.confidences, current.confidences, method="asymp").pvalue <= LEVEL)


def mmd(reference: WindowRows, current: WindowRows, random: np.random.Generator) -> bool:
    """Maximum mean discrepancy of the embeddings, Gaussian kernel of median width, permuted: alibi-detect's MMDDrift written anew."""
    rows = np.concatenate([reference.embeddings, current.embeddings]).astype(np.float64)
    squares = (rows**2).sum(axis=1)
    distance = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0.0)
    kernel = np.exp(-distance / np.median(distance[distance > 0]))
    np.fill_diagonal(kernel, 0.0)
    m, n = len(reference), len(current)
    signs = np.concatenate([np.full(m, 1.0 / m), np.full(n, -1.0 / n)])
    orders = np.stack([signs, *(random.permutation(signs) for _ in range(PERMUTATIONS))])
    found = ((orders @ kernel) * orders).sum(axis=1)
    return bool((1 + (found[1:] >= found[0]).sum()) / (1 + PERMUTATIONS) <= LEVEL)


PEERS: dict[str, Peer] = {
    "Evidently's rule": evidently_rule, "KS of all columns, Bonferroni": ks_bonferroni, "KS of confidence": ks_confidence, "MMD": mmd,
}  # fmt: skip


def _shares(one: WindowRows, other: WindowRows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    names = sorted({*one.predictions, *other.predictions})
    counted = [np.array([rows.predictions.count(name) for name in names], dtype=np.float64) for rows in (one, other)]
    return counted[0] / counted[0].sum(), counted[1] / counted[1].sum()
