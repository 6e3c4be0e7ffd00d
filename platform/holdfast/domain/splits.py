"""What goes into a dataset snapshot: which rows, in which split, with what quota for each origin.

A text, however often it occurs, is in one split only, and a text that a parent version was trained on is never held out for
its child: so no candidate is judged on a row that it, or the champion it is compared with, has learnt.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.answers import label_counts, labels_in
from holdfast.domain.captures import LabelledCapture
from holdfast.domain.datasets import Example, Period, SnapshotRow, Split
from holdfast.domain.tasks import RetrainingPolicy
from holdfast.domain.windows import ReferenceWindow

FIRST_SHARES: Mapping[str, float] = {"holdout": 0.2, "validation": 0.1}
RECENT_SHARES: Mapping[str, float] = {"holdout": 0.35, "validation": 0.1}
"""Recent rows are few and both teach and judge; a third to judge lets a verdict of a few hundred rows be sure."""
RARE = 5
"""The rows of a label (or field) with fewer rows than this are all kept for training: one held-out row says nothing."""
NEIGHBOURS = 10
"""So many nearest recent rows are asked whether they contradict a past row."""
LEAST_NEAR = 5
"""So many of them must be near, or nothing is said."""
SHARE_OTHER, SHARE_SAME = 0.6, 0.2
"""Contradicted: at least the first share of the near ones names one other label, and at most the second names the row's own.
Not all of them: with one label in twenty wrong, ten that are unanimous are rare and a changed meaning would be kept."""
NEAR = 0.6
"""Cosine at or above which a recent row counts as near."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenRows:
    """The rows of a snapshot, and how many past rows were left out as contradicted."""

    rows: tuple[SnapshotRow, ...]
    contradicted_count: int = 0


def normalised(text: str) -> str:
    """The form under which two texts count as the same.

    >>> normalised("  Where IS my\\tcard? ")
    'where is my card?'
    """
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip().casefold()


def first_snapshot(examples: Iterable[Example], *, seed: int) -> FrozenRows:
    """The rows of a first training: each text once (its first label counts), split by a hash of the text."""
    kept: dict[str, Example] = {}
    for example in examples:
        kept.setdefault(normalised(example.text), example)
    rare = _rare(example.label for example in kept.values())
    rows = [
        _row(
            example.text,
            example.label,
            _split(key, FIRST_SHARES, seed, _holds(rare, example.label)),
            "past",
            example.source,
            example.capture_id,
        )
        for key, example in kept.items()
    ]
    return FrozenRows(rows=_numbered(rows))


def next_snapshot(
    past: Sequence[SnapshotRow],
    labelled: Sequence[LabelledCapture],
    *,
    since_seq: int,
    reference: ReferenceWindow | None,
    policy: RetrainingPolicy,
    seed: int,
) -> FrozenRows:
    """The rows of a retraining: the parent's rows, and every labelled capture that is not among them.

    Captures with a seq of at least ``since_seq`` are recent. Past rows that recent labels contradict are left out. Where there
    are more rows than ``policy.max_rows``, past rows get at most ``policy.replay_share`` of it, and the newest are kept.
    """
    splits = {normalised(row.text): row.split for row in past}
    newest: dict[str, LabelledCapture] = {normalised(item.capture.text): item for item in labelled}
    recent_keys = {key for key, item in newest.items() if item.capture.seq >= since_seq}
    rare = _rare(item.label.value for item in newest.values())
    fresh: dict[Period, list[SnapshotRow]] = {"past": [], "recent": []}
    for key, item in newest.items():
        period: Period = "recent" if key in recent_keys else "past"
        shares = RECENT_SHARES if period == "recent" else FIRST_SHARES
        split = splits.get(key) or _split(key, shares, seed, _holds(rare, item.label.value))
        fresh[period].append(_row(item.capture.text, item.label.value, split, period, item.label.source, item.capture.capture_id))
    kept = [replace(row, period="past") for row in past if normalised(row.text) not in newest] + fresh["past"]
    recent_items = [newest[key] for key in newest if key in recent_keys]
    own = {item.capture.text: item.capture.embedding for item in labelled}  # past captures are not in the reference
    contradicted = contradicted_texts([row.text for row in kept], [row.label for row in kept], recent_items, reference, own=own)
    agreeing = [row for row in kept if row.text not in contradicted]
    chosen_past, chosen_recent = _quota(agreeing, fresh["recent"], policy)
    return FrozenRows(rows=_numbered([*chosen_past, *chosen_recent]), contradicted_count=len(kept) - len(agreeing))


def contradicted_texts(
    texts: Sequence[str],
    labels: Sequence[str],
    recent: Sequence[LabelledCapture],
    reference: ReferenceWindow | None,
    *,
    own: Mapping[str, NDArray[np.float16]] | None = None,
) -> frozenset[str]:
    """Past texts whose nearest recent rows agree on another label, in the embedding of the version that answered both.

    A past text with an embedding neither in the reference window nor in ``own`` cannot be compared and is never contradicted.
    """
    if reference is None or len(recent) < LEAST_NEAR:
        return frozenset()
    vectors = {text: np.asarray(vector, dtype=np.float32) for text, vector in (own or {}).items()} | _vectors_by_text(reference)
    known = [i for i, text in enumerate(texts) if text in vectors]
    if not known:
        return frozenset()
    now = _unit(np.stack([np.asarray(item.capture.embedding, dtype=np.float32) for item in recent]))
    then = _unit(np.stack([vectors[texts[i]] for i in known]))
    likeness = then @ now.T  # [past, recent]
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :NEIGHBOURS]  # [past, NEIGHBOURS]
    near = np.take_along_axis(likeness, nearest, axis=1) >= NEAR
    said = [[recent[j].label.value for j, close in zip(nearest[row], near[row], strict=True) if close] for row in range(len(known))]
    return frozenset(texts[i] for i, others in zip(known, said, strict=True) if _disagree(labels[i], others))


def _disagree(label: str, others: Sequence[str]) -> bool:
    """Whether near labels clearly say something else. Sets that share a label agree, and so do extractions that share a field.

    >>> _disagree("billing", ["sales"] * 5 + ["billing"]), _disagree("billing", ["sales"] * 3 + ["billing"] * 3)
    (True, False)
    >>> _disagree('["a"]', ['["b"]'] * 6), _disagree('["a"]', ['["a","b"]'] * 6)
    (True, False)
    """
    if len(others) < LEAST_NEAR:
        return False
    own = frozenset(labels_in(label))
    first, count = Counter(labels_in(other) for other in others).most_common(1)[0]
    same = sum(other == label or not own.isdisjoint(labels_in(other)) for other in others)
    return own.isdisjoint(first) and own != frozenset(first) and count >= SHARE_OTHER * len(others) and same <= SHARE_SAME * len(others)


def _vectors_by_text(reference: ReferenceWindow) -> dict[str, NDArray[np.float32]]:
    vectors: dict[str, NDArray[np.float32]] = {}
    for part in (reference.fitted, reference.calibration):
        vectors.update(zip(part.texts, part.embeddings, strict=True))
    return vectors


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)


def _quota(past: list[SnapshotRow], recent: list[SnapshotRow], policy: RetrainingPolicy) -> tuple[list[SnapshotRow], list[SnapshotRow]]:
    """At most ``max_rows`` rows; what one side does not need of its share goes to the other. The newest are at the end."""
    if len(past) + len(recent) <= policy.max_rows:
        return past, recent
    past_limit = max(round(policy.max_rows * policy.replay_share), policy.max_rows - len(recent))
    chosen = past[-past_limit:] if past_limit else []
    return chosen, recent[-(policy.max_rows - len(chosen)) :]


def _split(key: str, shares: Mapping[str, float], seed: int, rare: bool) -> Split:
    if rare:
        return "train"
    raw = hashlib.blake2b(f"{seed}\x1f{key}".encode(), digest_size=8).digest()
    point = int.from_bytes(raw, "big") / 2**64
    if point < shares["holdout"]:
        return "holdout"
    return "validation" if point < shares["holdout"] + shares["validation"] else "train"


def _rare(labels: Iterable[str]) -> frozenset[str]:
    return frozenset(label for label, count in label_counts(labels).items() if count < RARE)


def _holds(rare: frozenset[str], value: str) -> bool:
    return not rare.isdisjoint(labels_in(value))


def _row(text: str, label: str, split: Split, period: Period, source: str, capture_id: str | None = None) -> SnapshotRow:  # noqa: PLR0917
    return SnapshotRow(row_id=0, text=text, label=label, split=split, period=period, source=source, capture_id=capture_id)


def _numbered(rows: Sequence[SnapshotRow]) -> tuple[SnapshotRow, ...]:
    return tuple(replace(row, row_id=number) for number, row in enumerate(rows))
