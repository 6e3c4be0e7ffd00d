"""Texts that are nearly the same: clusters by the Jaccard similarity of their shingles, found without comparing all pairs.

Two texts whose similarity is at least t share one of their rarest shingles: of ``n`` shingles, the ``n - ceil(t n) + 1`` rarest suffice
(prefix filter: Chaudhuri, Ganti, Kaushik, 2006; Bayardo, Ma, Srikant, 2007). Texts that share one are candidates, and each candidate
pair is verified by its exact similarity, so no pair is merged that is not alike. Unlike MinHash nothing is missed either, except among
more than ``WINDOW`` texts that share the same rare shingle, where each is compared with its neighbours in length alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

SIMILARITY = 0.8
"""Jaccard similarity at or above which two texts count as near-duplicates; as in Lee et al. 2022 (deduplicating training data)."""
WINDOW = 50
"""Texts that share a rare shingle are compared with so many next ones in order of length: bounds time and memory."""
PAIRS_AT_ONCE = 200_000
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
"""A word; a letter of a script without blanks between its words is one by itself."""


def shingles(text: str) -> frozenset[str]:
    """Words and pairs of neighbouring words, without case and punctuation; of a text without words the text itself.

    A number is a word: two orders of different numbers differ, though most of their letters agree.

    >>> sorted(shingles("Where is it?"))
    ['is', 'is it', 'it', 'where', 'where is']
    >>> sorted(shingles("?!"))
    ['?!']
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = _WORD.findall(plain)
    return frozenset(words) | {f"{a} {b}" for a, b in pairwise(words)} or frozenset({plain.strip()})


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of the shingles of two texts, 0..1.

    >>> similarity("where is my card", "Where is my card?"), similarity("order 12", "order 13")
    (1.0, 0.2)
    """
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def clusters(texts: Sequence[str], *, threshold: float = SIMILARITY) -> NDArray[np.intp]:
    """The cluster of each text, [n]: numbered from 0 in order of first members; near-duplicates share one, directly or in a chain.

    >>> clusters(["where is my card", "hello", "Where is my card?"]).tolist()
    [0, 1, 0]
    """
    table = _table(texts)
    pairs = _verified(table, _candidates(table, threshold), threshold)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(texts), len(texts)))
    _, found = connected_components(graph, directed=False) if len(texts) else (0, np.zeros(0, np.intp))
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]  # numbers of components in order of first members


def _table(texts: Sequence[str]) -> csr_array:
    """Texts by shingles, [n, shingles], ones; columns in order of frequency, the rarest first."""
    columns: dict[str, int] = {}
    indices: list[int] = []
    ends = [0]
    for text in texts:
        indices.extend(columns.setdefault(one, len(columns)) for one in sorted(shingles(text)))
        ends.append(len(indices))
    flat = np.asarray(indices, np.int64)
    counts = np.bincount(flat, minlength=len(columns))
    rank = np.empty(len(columns), np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(columns))
    table = csr_array((np.ones(len(flat), np.int32), rank[flat], np.asarray(ends)), shape=(len(texts), len(columns)))
    table.sort_indices()
    return table


def _candidates(table: csr_array, threshold: float) -> NDArray[np.int64]:
    """Pairs of rows, [pairs, 2], that share a shingle of their prefixes and whose sizes allow the similarity."""
    sizes = np.diff(table.indptr).astype(np.int64)
    prefixes = sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1
    rows = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(rows)) - np.repeat(table.indptr[:-1], sizes)
    kept = place < prefixes[rows]
    rows, shingle = rows[kept], np.asarray(table.indices, np.int64)[kept]
    order = np.lexsort((rows, sizes[rows], shingle))
    rows, shingle = rows[order], shingle[order]
    found = [np.zeros(0, np.int64)]
    for step in range(1, WINDOW + 1):
        a, b = rows[:-step], rows[step:]
        near = (shingle[:-step] == shingle[step:]) & (sizes[a] >= threshold * sizes[b] - 1e-9)
        if not near.any():
            continue
        low, high = np.minimum(a[near], b[near]), np.maximum(a[near], b[near])
        found.append(low * len(sizes) + high)
    pairs = np.unique(np.concatenate(found))
    return np.stack([pairs // max(1, len(sizes)), pairs % max(1, len(sizes))], axis=1)


def _verified(table: csr_array, pairs: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """The pairs whose exact similarity reaches the threshold."""
    sizes = np.diff(table.indptr)
    kept = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        some = pairs[start : start + PAIRS_AT_ONCE]
        shared = np.asarray(table[some[:, 0]].multiply(table[some[:, 1]]).sum(axis=1)).ravel()
        either = sizes[some[:, 0]] + sizes[some[:, 1]] - shared
        kept.append(some[shared >= threshold * either - 1e-9])
    return np.concatenate(kept)
