"""Descriptors of a text that need no model: its length, its share of characters that are no letters, its share of unknown words."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.records import canonical
from holdfast.domain.statistics.conformal import edges_of
from holdfast.domain.symptoms import Lexicon, words_of

DESCRIPTORS = ("length", "no_letters", "unknown_words")
SLICE_BUCKETS = 32
"""Slices are counted by a hash: however many a client makes up, they cost this many counts."""


def described(texts: Sequence[str], lexicon: Lexicon, *, known: bool = False) -> NDArray[np.float64]:
    """[n, len(DESCRIPTORS)] of texts. ``known`` says that the lexicon was made of these: a word is then unknown if no other has it.

    >>> from holdfast.domain.symptoms import lexicon_of
    >>> described(["my card 7"], lexicon_of(["my account"])).round(2).tolist()
    [[9.0, 0.14, 0.5]]
    """
    return np.array([_described(text, lexicon, 1 if known else 0) for text in texts], dtype=np.float64).reshape(-1, len(DESCRIPTORS))


def descriptor_edges(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Edges of each column of fitted rows [n, len(DESCRIPTORS)], one just above its highest value; none when all are constant."""
    if not len(rows) or np.ptp(rows, axis=0).max() == 0.0:
        return tuple(np.empty(0) for _ in DESCRIPTORS)
    return tuple(_edges_and_beyond(column) for column in rows.T)


def _edges_and_beyond(column: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.append(edges_of(column), np.nextafter(column.max(), np.inf))


def slice_bucket(slices: Mapping[str, str]) -> int:
    """0 .. SLICE_BUCKETS - 1, of all slices of a capture together.

    >>> slice_bucket({"a": "1", "b": "2"}) == slice_bucket({"b": "2", "a": "1"})
    True
    """
    return hashlib.blake2b(canonical(dict(slices)), digest_size=1).digest()[0] % SLICE_BUCKETS


def _described(text: str, lexicon: Lexicon, own: int) -> tuple[float, float, float]:
    words = words_of(text)
    unknown = sum(lexicon.words.get(word, 0) <= own for word in words) if words else 0
    seen = [letter for letter in text if not letter.isspace()]
    marks = sum(not letter.isalpha() for letter in seen) / len(seen) if seen else 1.0
    return float(len(text)), marks, unknown / len(words) if words else 0.0
