"""Drift reports: the result of one comparison of a current window with the reference of a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from holdfast.domain.estimates import Estimate
from holdfast.domain.ids import AdapterDigest, ReportId, TaskName


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """What Evidently computed for one window. It shows; the monitors decide."""

    report_id: ReportId
    task: TaskName
    adapter_digest: AdapterDigest
    first_seq: int
    last_seq: int
    row_count: int
    labelled_count: int
    created_at: datetime
    metrics: Mapping[str, float]
    """Finite numbers only; a metric that could not be computed is absent."""
    html_path: str
    """Relative to the home."""
    estimate: Estimate | None = None
    """Accuracy of the window from confidence and the labels that came; None in reports that are older than it."""
