"""Topics: which recent inputs are unlike the training data, and how they fall into groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.captures import Capture
from holdfast.domain.diagnosis.case import Case, Group
from holdfast.domain.scorers import Scorers
from holdfast.domain.statistics.scores import distances, halved
from holdfast.domain.symptoms import Lexicon, over_represented, unseen_share

FAMILIAR = 0.9
"""Quantile of the calibration rows' novelty below which an input counts as familiar."""
MOST_GROUPS = 3
LEAST_ROWS = 5
ROUNDS = 25
EXAMPLES = 3
EXAMPLE_CHARS = 120


def novelty(case: Case, lexicon: Lexicon) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each recent capture, and each calibration row, is unlike the training data in meaning or in words."""
    rows = case.reference.calibration
    far_before, far_now = far(case.scorers, rows.embeddings), far(case.scorers, embeddings_of(case))
    odd_before = np.array([unseen_share(text, lexicon) for text in rows.texts])
    odd_now = np.array([unseen_share(c.text, lexicon) for c in case.recent])
    before = np.maximum(_place(far_before, far_before), _place(odd_before, odd_before))
    now = np.maximum(_place(far_now, far_before), _place(odd_now, odd_before))
    limit = np.quantile(before, FAMILIAR) if len(before) else 1.0
    return now > limit, before > limit


def embeddings_of(case: Case) -> NDArray[np.float16]:
    """Embeddings [n, hidden] of the recent captures; NaN where one has another width than the reference."""
    known = case.reference.calibration.embeddings
    width = known.shape[1] if known.ndim == 2 else 0
    return np.stack([c.embedding if c.embedding.shape == (width,) else np.full(width, np.nan, dtype=np.float16) for c in case.recent])


def far(scorers: Scorers, embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """Distance [n] to what was known; a row that is not finite is as far as can be."""
    stored = halved(embeddings)
    if scorers.embedding is None or stored.ndim != 2:
        return np.zeros(len(stored))
    good = np.asarray(np.isfinite(stored).all(axis=1))
    return np.where(good, distances(scorers.embedding, np.where(good[:, None], stored, 0.0)), np.inf)


def groups_of(captures: Sequence[Capture], lexicon: Lexicon) -> tuple[Group, ...]:
    """Novel captures in at most three groups, the largest first. The same captures give the same groups.

    Spherical k-means (Dhillon and Modha 2001) from the farthest points: the first middle is the row nearest the mean, each further one
    the row least like those before.
    """
    rows = [c for c in captures if c.text.strip() and c.embedding.ndim == 1 and np.isfinite(c.embedding).all() and np.any(c.embedding)]
    if len(rows) < LEAST_ROWS or len({len(c.embedding) for c in rows}) > 1:
        return ()
    units = np.stack([c.embedding.astype(np.float64) for c in rows])
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    member, middles = _spherical(units, min(MOST_GROUPS, len(rows) // LEAST_ROWS))
    found = []
    for number, middle in enumerate(middles):
        own = np.flatnonzero(member == number)
        nearest = own[np.argsort(-(units[own] @ middle), kind="stable")]
        if len(own) >= LEAST_ROWS:
            texts = list(dict.fromkeys(_line(rows[i].text) for i in nearest))[:EXAMPLES]
            terms = over_represented([rows[i].text for i in own], lexicon)
            found.append(Group(row_count=len(own), terms=terms, examples=tuple(texts)))
    return tuple(sorted(found, key=lambda g: (-g.row_count, g.examples)))


def _spherical(units: NDArray[np.float64], count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Group [n] of each unit row, and the middles [count, hidden]."""
    picked = [int(np.argmax(units @ units.mean(axis=0)))]
    while len(picked) < count:
        picked.append(int(np.argmin((units @ units[picked].T).max(axis=1))))
    middles = units[picked]
    member = np.argmax(units @ middles.T, axis=1)
    for _ in range(ROUNDS):
        sums = np.stack([units[member == k].sum(axis=0) for k in range(count)])
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        middles = np.where(lengths > 0, sums / np.where(lengths > 0, lengths, 1.0), middles)
        again = np.argmax(units @ middles.T, axis=1)
        if np.array_equal(again, member):
            break
        member = again
    return member, middles


def _line(text: str) -> str:
    words = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))  # no control character reaches a terminal
    return words if len(words) <= EXAMPLE_CHARS else words[: EXAMPLE_CHARS - 1] + "…"


def _place(values: NDArray[np.float64], among: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share [n] of ``among`` that lies strictly below each value; so 1 only above everything."""
    return np.searchsorted(np.sort(among), values, side="left") / max(1, len(among))
