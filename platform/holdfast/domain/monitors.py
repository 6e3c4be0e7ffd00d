"""What a monitor remembers and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from holdfast.domain.ids import AdapterDigest, TaskName

MonitorName = Literal["embedding", "label_mix", "confidence", "quality"]
MonitorStatus = Literal["not enough data", "quiet", "watching", "alarm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorReading:
    """What one monitor says now."""

    monitor: str
    status: MonitorStatus
    log_evidence: float
    """Natural logarithm of the e-detector's value; an alarm at `log_threshold`."""
    log_threshold: float
    """Logarithm of the guaranteed mean run length, in events, between false alarms of this monitor."""
    event_count: int
    onset_seq: int
    """Capture seq at which the change most likely began; 0 while nothing speaks for one."""
    detail: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSet:
    """All monitors of one version of one task, with how far in the log they have read. Saved in one transaction."""

    task: TaskName
    adapter_digest: AdapterDigest
    capture_cursor: int
    label_cursor: int
    report_cursor: int
    states: Mapping[str, str]
    """Monitor name to its state as canonical JSON; a restart goes on bit for bit."""
    readings: tuple[MonitorReading, ...]
    updated_at: datetime
    version: int = 0
    """Grows by one with each save; a save on an older one is refused, so no event counts twice."""
