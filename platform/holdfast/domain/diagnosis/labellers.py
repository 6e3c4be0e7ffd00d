"""Label sources: labels of one source that disagree with the answers where every other source agrees with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta

from holdfast.domain.captures import LabelledCapture
from holdfast.domain.diagnosis.case import MIN_LABELLED, Case, Exclusion, Finding
from holdfast.domain.diagnosis.shares import share_change
from holdfast.domain.statistics.confidence import two_shares

SOURCE_MARGIN = 0.05
"""By how much, at least and surely, a source must disagree more than the others together."""
OTHERS_RISEN = 0.05
"""Errors that the other sources see surely risen by more than this are no matter of labels."""
BURST = timedelta(hours=1)


def doubtful_source(case: Case) -> Finding | None:
    """A source that disagrees while the others do not; None where there is no other source to ask, or none stands out."""
    by_source: dict[str, list[LabelledCapture]] = defaultdict(list)
    for row in case.labelled:
        by_source[row.label.source].append(row)
    if len(by_source) < 2:
        return None
    source = max(sorted(by_source), key=lambda name: _margin(by_source, name))
    own, others = by_source[source], _others(by_source, source)
    if min(len(own), len(others)) < MIN_LABELLED or _margin(by_source, source) <= SOURCE_MARGIN or _risen(case, others):
        return None
    wrong, calm = sum(r.wrong for r in own), sum(r.wrong for r in others)
    burst = _densest([r for r in own if r.wrong])
    sentence = (
        f"labels of {source!r} disagree with {wrong / len(own):.0%} of the answers ({len(own)} labels), those of every other source with "
        f"{calm / len(others):.0%} ({len(others)}); {burst} of the {wrong} that disagree were given within one hour; "
        "they say more about the labels than about the version, and are kept out of training"
    )
    change = share_change(f"disagreement of {source}, against other sources", (wrong, len(own)), (calm, len(others)))
    return Finding(
        cause="label source", sentence=sentence, changes=(change,),
        evidence={"share_wrong_others": calm / len(others), "burst_count": burst},
        exclusions=(Exclusion(since_seq=case.onset_seq, source=source),),
    )  # fmt: skip


def _others(by_source: Mapping[str, Sequence[LabelledCapture]], source: str) -> list[LabelledCapture]:
    return [row for name, rows in by_source.items() if name != source for row in rows]


def _margin(by_source: Mapping[str, Sequence[LabelledCapture]], source: str) -> float:
    own, others = by_source[source], _others(by_source, source)
    return two_shares(sum(r.wrong for r in own), len(own), sum(r.wrong for r in others), len(others))[1]


def _risen(case: Case, others: Sequence[LabelledCapture]) -> bool:
    rows = case.reference.calibration
    base = [said != label for said, label in zip(rows.predictions, rows.labels, strict=True) if label is not None]
    return two_shares(sum(r.wrong for r in others), len(others), sum(base), len(base))[1] > OTHERS_RISEN


def _densest(rows: Sequence[LabelledCapture]) -> int:
    """Most labels that were given within one hour."""
    times = sorted(row.label.labelled_at for row in rows)
    first, most = 0, 0
    for last, at in enumerate(times):
        while at - times[first] > BURST:
            first += 1
        most = max(most, last - first + 1)
    return most
