"""Alerts: an opened instance of a condition on monitors, one per cause."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from holdfast.domain.diagnosis import Diagnosis
from holdfast.domain.ids import AdapterDigest, AlertId, TaskName, derive

AlertState = Literal["open", "acknowledged", "resolved", "false alarm"]
LIVING: frozenset[AlertState] = frozenset({"open", "acknowledged"})
"""Not answered for good yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert. Its id comes from its fingerprint and the event at which it opened."""

    alert_id: AlertId
    task: TaskName
    adapter_digest: AdapterDigest
    fingerprint: str
    monitors: tuple[str, ...]
    state: AlertState
    opened_at: datetime
    updated_at: datetime
    resolved_at: datetime | None = None
    event_seq: int
    """Capture seq at which the first monitor alarmed."""
    onset_seq: int
    """Capture seq at which the change most likely began."""
    diagnosis: Diagnosis
    response: str = ""
    """What the loop does about it now, in words."""


def fingerprint_of(task: TaskName, adapter_digest: AdapterDigest, family: str) -> str:
    """What makes two alarms the same alert: the task, the version that answers, and the family of the cause."""
    return derive("fp", task, adapter_digest, family)
