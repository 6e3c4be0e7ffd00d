"""Promotions: the move of a judged version to champion, and the move back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from holdfast.domain.gates import Verdict
from holdfast.domain.ids import AdapterDigest, PromotionId, TaskName, VerdictId

PromotionKind = Literal["promotion", "rollback"]
PromotionState = Literal["warming", "live", "superseded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One committed move of the champion of a task."""

    promotion_id: PromotionId
    task: TaskName
    kind: PromotionKind
    digest: AdapterDigest
    from_digest: AdapterDigest | None
    verdict_id: VerdictId | None
    """None only for a rollback: an earlier champion passed its own gate."""
    generation: int
    actor: str
    reason: str
    state: PromotionState
    """`warming` until the routing table names the version."""
    created_at: datetime
    live_at: datetime | None = None


def refusal(
    verdict: Verdict | None, *, digest: AdapterDigest, champion: AdapterDigest | None, policy_digest: str, now: datetime
) -> str | None:
    """Why this verdict does not allow this promotion; None when it does. Anything missing or stale is a refusal."""
    if verdict is None:
        return "it has no verdict"
    if verdict.candidate != digest:
        return "the verdict is on another adapter"
    if verdict.outcome != "pass":
        return f"its verdict is '{verdict.outcome}': {verdict.reason}"
    if verdict.champion != champion:
        return "the champion changed since the verdict"
    if verdict.policy_digest != policy_digest:
        return "the contract changed since the verdict"
    if now >= verdict.expires_at:
        return f"the verdict expired at {verdict.expires_at:%Y-%m-%d %H:%M} UTC"
    return None
