"""Gates: the criteria a candidate must meet, and the verdict on it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from holdfast.domain.ids import AdapterDigest, SnapshotDigest, TaskName, VerdictId

Outcome = Literal["pass", "fail", "need more"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionResult:
    """One criterion with what it was decided from. ``observed`` lies in ``lower .. upper`` at the policy's error rate."""

    name: str
    outcome: Outcome
    observed: float | None
    lower: float | None
    upper: float | None
    threshold: float
    row_count: int
    rows_needed: int = 0
    """How many more rows may settle it, when the outcome is `need more`."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The gate's answer on one candidate, bound to its digest, the evaluation rows and the policy."""

    verdict_id: VerdictId
    task: TaskName
    candidate: AdapterDigest
    champion: AdapterDigest | None
    snapshot_digest: SnapshotDigest
    policy_digest: str
    outcome: Outcome
    criteria: tuple[CriterionResult, ...]
    slices: tuple[CriterionResult, ...] = ()
    """Per true label, for reading; a slice fails the verdict only when its loss is sure."""
    judged_at: datetime
    expires_at: datetime

    @property
    def reason(self) -> str:
        """The criteria that keep it from passing, or that it passed."""
        open_ones = [c.reason for c in self.criteria if c.outcome != "pass"]
        return "; ".join(open_ones) or "every criterion is met"
