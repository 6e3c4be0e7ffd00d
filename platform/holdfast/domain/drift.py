"""Drift reports: the result of one comparison of a current window with the reference of a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from holdfast.domain.estimates import Estimate
from holdfast.domain.ids import AdapterDigest, ReportId, TaskName
from holdfast.domain.monitors import MonitorReading

EVIDENCE = "evidence of "
"""Begins the name of a figure that is how far a monitor is on its way to an alarm: 1 is one."""
ESTIMATED = "estimated accuracy"


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


def figures_of(readings: Sequence[MonitorReading], estimate: Estimate) -> dict[str, float]:
    """What stands in a report beside Evidently's own numbers: the monitors as they were when it was made, and the estimate.

    >>> figures_of((), Estimate(value=0.9, lower=0.8, upper=1.0, row_count=9, label_count=0, effective_rows=9.0, novel_share=0.0))
    {'estimated accuracy': 0.9}
    """
    found = {EVIDENCE + r.monitor: r.log_evidence / r.log_threshold for r in readings if r.status != "not enough data"}
    return found if estimate.value is None else found | {ESTIMATED: estimate.value}
