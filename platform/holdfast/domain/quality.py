"""Quality: scores with intervals on labelled captures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from holdfast.domain.answers import labels_in
from holdfast.domain.captures import LabelledCapture
from holdfast.domain.statistics.confidence import interval

ALPHA = 0.05
"""Probability that an interval ever misses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A share with an interval that holds at any number of looks."""

    value: float
    lower: float
    upper: float
    row_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """Scores of one version on labelled rows, overall and per true label."""

    overall: Score | None
    """None when there is no labelled row: unknown, never zero."""
    by_label: Mapping[str, Score] = field(default_factory=dict)


def score(wrong: Sequence[bool], *, alpha: float = ALPHA) -> Score | None:
    """Accuracy of rows in the order their labels came; None when there is none.

    >>> found = score([False] * 40)
    >>> found.value, found.row_count, found.lower > 0.8
    (1.0, 40, True)
    >>> score([]) is None
    True
    """
    found = interval(1.0 - np.asarray(wrong, dtype=np.float64), alpha=alpha)
    if found is None:
        return None
    # Rows whose accuracy changed on the way can put the mean outside what held at every look; it is shown inside.
    return Score(value=found.mean, lower=min(found.lower, found.mean), upper=max(found.upper, found.mean), row_count=found.row_count)


def quality_of(labelled: Sequence[LabelledCapture]) -> QualityReport:
    """Overall and per true label (rows whose truth holds it), each label with its own interval (not simultaneous over labels)."""
    flags: dict[str, list[bool]] = {}
    for row in labelled:
        for label in labels_in(row.label.value):
            flags.setdefault(label, []).append(row.wrong)
    scores = {label: score(wrong) for label, wrong in sorted(flags.items())}
    return QualityReport(
        overall=score([row.wrong for row in labelled]),
        by_label={label: found for label, found in scores.items() if found is not None},
    )
