"""What goes into a dataset snapshot: which rows, in which split, with what quota for each origin.

A text and what is nearly the same, however often it occurs, is in one split only, and a text that a parent version was trained on is
never held out for its child: so no candidate is judged on a row that it, or the champion it is compared with, has learnt.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.answers import label_counts, labels_in
from holdfast.domain.captures import LabelledCapture
from holdfast.domain.curation import beyond_the_cap, capped, conflicts, without_sealed
from holdfast.domain.datasets import Example, LeftOut, Period, SnapshotRow, Split
from holdfast.domain.near_duplicates import clusters
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
    """The rows of a snapshot, how many past rows were left out as contradicted, and what else was."""

    rows: tuple[SnapshotRow, ...]
    contradicted_count: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)


def normalised(text: str) -> str:
    """The form under which two texts count as the same.

    >>> normalised("  Where IS my\\tcard? ")
    'where is my card?'
    """
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text)).strip().casefold()


def first_snapshot(
    examples: Iterable[Example], *, seed: int, policy: RetrainingPolicy | None = None, sealed: Sequence[str] = ()
) -> FrozenRows:
    """The rows of a first training: each text once (its first label counts), split by a hash of the first text of its cluster.

    Near-duplicates beyond the policy's number do not train, and nothing does that is nearly one of the ``sealed`` texts.
    """
    kept: dict[str, Example] = {}
    unlike: Counter[str] = Counter()
    for example in examples:
        first = kept.setdefault(normalised(example.text), example)
        unlike[example.source] += first.label != example.label
    rows = [_row(one.text, one.label, "past", one.source, one.capture_id) for one in kept.values()]
    whole = replace(policy or RetrainingPolicy(), max_rows=max(1, len(rows)))  # what a person brings is never cut
    frozen = _curated(rows, {}, policy=whole, seed=seed, sealed=sealed)
    return replace(frozen, left_out=_with_conflicts(frozen.left_out, unlike))


def next_snapshot(
    past: Sequence[SnapshotRow],
    labelled: Sequence[LabelledCapture],
    *,
    since_seq: int,
    reference: ReferenceWindow | None,
    policy: RetrainingPolicy,
    seed: int,
    sealed: Sequence[str] = (),
) -> FrozenRows:
    """The rows of a retraining: the parent's rows, and every labelled capture that is not among them.

    Captures with a seq of at least ``since_seq`` are recent; what a source gives of them beyond its share is left out, and so are past
    rows that recent labels contradict. Where there are more rows than ``policy.max_rows``, past rows get at most
    ``policy.replay_share`` of it, and the newest are kept. Nothing trains that is nearly one of the ``sealed`` texts.
    """
    labelled, capped_by_source = capped(labelled, since_seq=since_seq, policy=policy)
    newest: dict[str, LabelledCapture] = {normalised(item.capture.text): item for item in labelled}
    given: dict[Period, list[SnapshotRow]] = {"past": [], "recent": []}
    for item in newest.values():
        period: Period = "recent" if item.capture.seq >= since_seq else "past"
        given[period].append(_row(item.capture.text, item.label.value, period, item.label.source, item.capture.capture_id))
    kept = [replace(row, period="past") for row in past if normalised(row.text) not in newest] + given["past"]
    recent = [item for item in newest.values() if item.capture.seq >= since_seq]
    own = {item.capture.text: item.capture.embedding for item in labelled}  # past captures are not in the reference
    contradicted = contradicted_texts([row.text for row in kept], [row.label for row in kept], recent, reference, own=own)
    agreeing = [row for row in kept if row.text not in contradicted]
    splits = {normalised(row.text): row.split for row in past}
    frozen = _curated([*agreeing, *given["recent"]], splits, policy=policy, seed=seed, sealed=sealed)
    left_out = _with_conflicts(replace(frozen.left_out, capped_by_source=capped_by_source), _overwritten(past, labelled, newest))
    return FrozenRows(rows=frozen.rows, contradicted_count=len(kept) - len(agreeing), left_out=left_out)


def _curated(
    rows: Sequence[SnapshotRow], splits: Mapping[str, Split], *, policy: RetrainingPolicy, seed: int, sealed: Sequence[str]
) -> FrozenRows:
    """Rows in order of time with their splits, those that may not teach left out; ``splits``: of the texts that have one."""
    found = clusters([*sealed, *(row.text for row in rows)]).tolist()
    cluster_of = found[len(sealed) :]
    decided = _splits(rows, cluster_of, splits, frozenset(found[: len(sealed)]), seed)
    placed = [replace(row, split=split or "train") for row, split in zip(rows, decided, strict=True)]
    between = {at for at, split in enumerate(decided) if split is None}
    clash = conflicts(placed, cluster_of)
    out = between | clash.overruled
    beyond = beyond_the_cap(placed, cluster_of, policy.max_near_duplicates) - out
    left = [row for at, row in enumerate(placed) if at not in out | beyond]
    chosen_past, chosen_recent = _quota([r for r in left if r.period == "past"], [r for r in left if r.period == "recent"], policy)
    taught, alike_count = without_sealed([*chosen_past, *chosen_recent], sealed)
    return FrozenRows(
        rows=_numbered(taught),
        left_out=_with_conflicts(LeftOut(near_duplicate_count=len(beyond), sealed_alike_count=len(between) + alike_count), clash.by_source),
    )


def _splits(
    rows: Sequence[SnapshotRow], cluster_of: Sequence[int], splits: Mapping[str, Split], sealed: frozenset[int], seed: int
) -> list[Split | None]:
    """The split of each row: its own, else its cluster's, else by a hash of the cluster's first text.

    None for a new row between one that is held out and one that has taught: it can neither teach nor judge.
    """
    fresh = [normalised(row.text) not in splits for row in rows]
    fixed: dict[int, set[Split]] = defaultdict(set, {cluster: {"holdout"} for cluster in sealed})
    members: dict[int, list[SnapshotRow]] = defaultdict(list)
    for row, cluster, new in zip(rows, cluster_of, fresh, strict=True):
        if new:
            members[cluster].append(row)
        else:
            fixed[cluster].add(splits[normalised(row.text)])
    rare = _rare(row.label for some in members.values() for row in some)
    whole = {cluster: _of_cluster(fixed.get(cluster, set()), some, rare, seed) for cluster, some in members.items()}
    return [whole[cluster] if new else splits[normalised(row.text)] for row, cluster, new in zip(rows, cluster_of, fresh, strict=True)]


def _of_cluster(fixed: set[Split], fresh: Sequence[SnapshotRow], rare: frozenset[str], seed: int) -> Split | None:
    if len(fixed) > 1:
        return None if "holdout" in fixed else "train"
    if fixed:
        return next(iter(fixed))
    shares = RECENT_SHARES if any(row.period == "recent" for row in fresh) else FIRST_SHARES
    return _split(normalised(fresh[0].text), shares, seed, any(_holds(rare, row.label) for row in fresh))


def _overwritten(past: Sequence[SnapshotRow], labelled: Sequence[LabelledCapture], newest: Mapping[str, LabelledCapture]) -> Counter[str]:
    """Source of an older label of a text to how many of them the newest one contradicts."""
    known = [(row.text, row.label, row.source) for row in past]
    known += [(item.capture.text, item.label.value, item.label.source) for item in labelled]
    now = {key: item.label.value for key, item in newest.items()}
    return Counter(source for text, label, source in known if now.get(normalised(text), label) != label)


def _with_conflicts(left_out: LeftOut, more: Mapping[str, int]) -> LeftOut:
    by_source = Counter(left_out.conflicts_by_source) + Counter(more)
    return replace(left_out, conflicts_by_source=dict(sorted(by_source.items())), conflict_count=by_source.total())


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


def _row(text: str, label: str, period: Period, source: str, capture_id: str | None) -> SnapshotRow:
    """A row whose split is not decided yet."""
    return SnapshotRow(row_id=0, text=text, label=label, split="train", period=period, source=source, capture_id=capture_id)


def _numbered(rows: Sequence[SnapshotRow]) -> tuple[SnapshotRow, ...]:
    return tuple(replace(row, row_id=number) for number, row in enumerate(rows))
