"""Quality: scores with intervals on labelled captures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
