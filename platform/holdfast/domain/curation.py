"""Curation: which of the rows that are there may teach. What is left out is counted, never silent.

A row held out for one version is sealed: neither it nor a near-duplicate of it teaches any version of the task.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.domain.captures import LabelledCapture
from holdfast.domain.datasets import SnapshotRow
from holdfast.domain.near_duplicates import clusters
from holdfast.domain.tasks import RetrainingPolicy

REVIEWED = ("console", "review")
"""Sources that begin so are a person who looked at the one text: `console:NAME` and `review:...`. They are never capped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflicts:
    """Rows whose cluster has another label by a newer row. Past ones that a recent row overrules do not teach."""

    by_source: Mapping[str, int]
    overruled: frozenset[int]
    """Positions of the past rows that a recent row overrules."""


def alike_to_sealed(rows: Sequence[SnapshotRow], sealed: Iterable[str]) -> frozenset[int]:
    """Positions of the rows that a training would learn from although a held-out row, or a sealed text, is nearly the same.

    Both splits that are not held out count: the head that is served has learnt from the validation rows too.
    """
    known = list(dict.fromkeys([*sealed, *(row.text for row in rows if row.split == "holdout")]))
    learnt = [at for at, row in enumerate(rows) if row.split != "holdout"]
    found = clusters([*known, *(rows[at].text for at in learnt)]).tolist()
    held = frozenset(found[: len(known)])
    return frozenset(at for at, cluster in zip(learnt, found[len(known) :], strict=True) if cluster in held)


def without_sealed(rows: Sequence[SnapshotRow], sealed: Iterable[str]) -> tuple[list[SnapshotRow], int]:
    """The rows but those alike to sealed ones, and how many these were. The result passes ``alike_to_sealed`` as it stands."""
    kept, texts = list(rows), list(sealed)
    while alike := alike_to_sealed(kept, texts):  # rows fewer, groups smaller: a bounded search may find a pair it had not compared
        kept = [row for at, row in enumerate(kept) if at not in alike]
    return kept, len(rows) - len(kept)


def conflicts(rows: Sequence[SnapshotRow], cluster_of: Sequence[int]) -> Conflicts:
    """Conflicts among rows that come in order of time: the newest row of a cluster has the right label."""
    newest = dict(zip(cluster_of, rows, strict=True))
    older = [at for at, row in enumerate(rows) if row.label != newest[cluster_of[at]].label]
    overruled = {at for at in older if rows[at].period == "past" and newest[cluster_of[at]].period == "recent"}
    return Conflicts(by_source=Counter(rows[at].source for at in older), overruled=frozenset(overruled))


def beyond_the_cap(rows: Sequence[SnapshotRow], cluster_of: Sequence[int], most: int) -> frozenset[int]:
    """Positions of the rows to learn from that are more than ``most`` of one cluster and label; the newest, at the end, are kept."""
    seen: Counter[tuple[int, str]] = Counter()
    beyond = set()
    for at in range(len(rows) - 1, -1, -1):
        if rows[at].split == "holdout":
            continue
        seen[cluster_of[at], rows[at].label] += 1
        if seen[cluster_of[at], rows[at].label] > most:
            beyond.add(at)
    return frozenset(beyond)


def capped(
    labelled: Sequence[LabelledCapture], *, since_seq: int, policy: RetrainingPolicy
) -> tuple[list[LabelledCapture], Mapping[str, int]]:
    """The labelled captures without what a source gives beyond its share of the recent ones, and how many those are by source.

    A source that is the only one is not capped. Which rows stay is drawn by a hash of the capture's id, so that a burst does not
    displace what the same source said before it.
    """
    by_source: dict[str, list[LabelledCapture]] = defaultdict(list)
    for item in labelled:
        if item.capture.seq >= since_seq:
            by_source[item.label.source].append(item)
    dropped: set[str] = set()
    counts: dict[str, int] = {}
    for source, limit in _limits({source: len(items) for source, items in by_source.items()}, policy).items():
        beyond = sorted(by_source[source], key=_draw)[limit:]
        if beyond:
            counts[source] = len(beyond)
            dropped.update(item.capture.capture_id for item in beyond)
    return [item for item in labelled if item.capture.capture_id not in dropped], counts


def _limits(counts: Mapping[str, int], policy: RetrainingPolicy) -> dict[str, int]:
    """Source to the most rows it may give: its share of what is then left, and ``min_labels`` in any case.

    >>> _limits({"robot": 10_000, "desk": 100}, RetrainingPolicy(max_share_by_source=0.8))
    {'robot': 400, 'desk': 40000}
    >>> _limits({"robot": 10_000}, RetrainingPolicy())
    {}
    """
    share, total = policy.max_share_by_source, sum(counts.values())
    if share >= 1.0 or len(counts) < 2:
        return {}
    others = {source: total - count for source, count in counts.items() if not source.startswith(REVIEWED)}
    return {source: max(policy.min_labels, int(share / (1.0 - share) * rest + 1e-9)) for source, rest in others.items()}


def _draw(item: LabelledCapture) -> bytes:
    return hashlib.blake2b(item.capture.capture_id.encode(), digest_size=8).digest()
