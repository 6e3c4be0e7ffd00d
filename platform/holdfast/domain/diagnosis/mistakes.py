"""Mistakes: errors on familiar and on novel inputs, and what they confuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.answers import kind_of, labels_in, spans_in
from holdfast.domain.captures import LabelledCapture
from holdfast.domain.diagnosis.case import MIN_LABELLED, Case
from holdfast.domain.statistics.confidence import two_shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Errors now and in the reference, among familiar and among novel inputs: (wrong, rows)."""

    now: tuple[int, int]
    familiar: tuple[int, int]
    novel: tuple[int, int]
    before: tuple[int, int]
    familiar_before: tuple[int, int]
    novel_before: tuple[int, int]

    def excess(self, part: Literal["familiar", "novel"]) -> float:
        """Errors above what the reference's rate gives, in rows."""
        wrong, rows = self.familiar if part == "familiar" else self.novel
        base_wrong, base_rows = self.familiar_before if part == "familiar" else self.novel_before
        usual = rate((base_wrong, base_rows)) if base_rows >= MIN_LABELLED else rate(self.before)
        return wrong - usual * rows

    @property
    def surely_risen(self) -> bool:
        """Whether errors are surely more frequent than in the reference."""
        return self.now[1] >= MIN_LABELLED and two_shares(*self.now, *self.before)[1] > 0


def errors_of(case: Case, novel_now: NDArray[np.bool_], novel_before: NDArray[np.bool_]) -> Errors:
    """Errors of the labelled captures that are among the recent ones, and of the calibration rows."""
    novel = dict(zip((c.capture_id for c in case.recent), novel_now.tolist(), strict=True))
    now = [(row.wrong, novel[row.capture.capture_id]) for row in case.labelled if row.capture.capture_id in novel]
    rows = case.reference.calibration
    marked = zip(rows.predictions, rows.labels, novel_before.tolist(), strict=True)
    before = [(said != label, odd) for said, label, odd in marked if label is not None]
    return Errors(
        now=_count(now), familiar=_count([e for e in now if not e[1]]), novel=_count([e for e in now if e[1]]),
        before=_count(before), familiar_before=_count([e for e in before if not e[1]]), novel_before=_count([e for e in before if e[1]]),
    )  # fmt: skip


def rate(part: tuple[int, int]) -> float:
    """Share of (wrong, rows); 0 without rows."""
    return part[0] / part[1] if part[1] else 0.0


def unknown_labels(case: Case, row: LabelledCapture) -> list[str]:
    """Labels of a row that the adapter does not know."""
    return [label for label in labels_in(row.label.value) if label not in case.known_labels]


def confusions(rows: Sequence[LabelledCapture]) -> list[tuple[str, int]]:
    """The three most frequent mistakes in words, with their counts."""
    return top(Counter(words for row in rows if row.wrong for words in _mistakes(row)))


def top(counts: Counter[str]) -> list[tuple[str, int]]:
    """The three largest; names break ties."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]


def _count(rows: Sequence[tuple[bool, bool]]) -> tuple[int, int]:
    return sum(wrong for wrong, _ in rows), len(rows)


def _mistakes(row: LabelledCapture) -> list[str]:
    """What was wrong, in words that can be counted: of sets and spans each label by itself."""
    said, right = row.capture.prediction.label, row.label.value
    if kind_of(right) == "classification":
        return [f"{right} answered as {said}"]
    ours, true = set(labels_in(said)), set(labels_in(right))
    found = [f"{label} missed" for label in sorted(true - ours)] + [f"{label} said without reason" for label in sorted(ours - true)]
    return found or [f"{label} cut out wrongly" for label in _cut_wrongly(said, right)]


def _cut_wrongly(said: str, right: str) -> list[str]:
    return sorted({span.field for span in set(spans_in(said)) ^ set(spans_in(right))})
