"""What a story ends with: quality before, during and after the change, and whether the loop truly closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from holdfast.cli.demo_traffic import Answered
from holdfast.domain.statistics.confidence import interval
from holdfast.domain.tasks import Metric

ALPHA = 0.05
AFTER_EVENTS = 300
"""Events that the new version must have answered before the story may end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Mean score in the task's metric with an interval that holds at any number of looks, at 95 %."""

    value: float
    lower: float
    upper: float
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the story saw."""

    answered: Sequence[Answered]
    failed: int
    first_digest: str
    champion_digest: str
    """By the assignment, at the end."""
    alert: dict[str, object]
    alerts_before_change: int
    retraining: dict[str, object]
    verdict: dict[str, object]
    versions: Sequence[dict[str, object]]
    captures_stored: int
    labels_sent: int
    labels_stored: int
    ledger_entries: int
    """0 when the ledger does not verify."""
    metric: Metric
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionTold:
    """A version, and how many events it answered."""

    number: int
    rung: str
    digest: str
    answered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryReport:
    """The result of a story."""

    closed: bool
    """Whether every check below holds."""
    checks: dict[str, bool]
    metric: Metric
    before: Score | None
    during: Score | None
    after: Score | None
    events_to_alert: int | None
    """Answered between the change and the opening of the alert."""
    events_to_swap: int | None
    """Answered between the change and the first answer of the new version."""
    diagnosis: str
    sentence: str
    alerts_before_change: int
    verdict: str
    requests_sent: int
    requests_repeated: int
    """Requests that needed more than one try."""
    requests_failed: int
    captures_stored: int
    labels_sent: int
    labels_stored: int
    ledger_entries: int
    versions: tuple[VersionTold, ...]
    seconds: float


def report_of(facts: Facts) -> StoryReport:
    """The report of what was seen."""
    answered = sorted(facts.answered, key=lambda a: a.answered_at)
    before = [a for a in answered if not a.ticket.changed]
    during = [a for a in answered if a.ticket.changed and a.adapter_digest == facts.first_digest]
    after = [a for a in answered if a.ticket.changed and a.adapter_digest != facts.first_digest]
    changed_at = min((a.answered_at for a in answered if a.ticket.changed), default=None)
    opened_at = _instant(facts.alert.get("opened_at"))
    swapped_at = min((a.answered_at for a in after), default=None)
    scores = [score_of(part) for part in (before, during, after)]
    checks = {
        "a new champion answers": bool(after) and answered[-1].adapter_digest == facts.champion_digest != facts.first_digest,
        "quality recovered": _surely_above(scores[2], scores[1]),
        "no request failed": facts.failed == 0,
        "captures sent = captures stored": len(answered) == facts.captures_stored,
        "labels sent = labels stored": facts.labels_sent == facts.labels_stored,
        "the ledger verifies": facts.ledger_entries > 0,
    }
    return StoryReport(
        closed=all(checks.values()), checks=checks, metric=facts.metric, before=scores[0], during=scores[1], after=scores[2],
        events_to_alert=_between(answered, changed_at, opened_at), events_to_swap=_between(answered, changed_at, swapped_at),
        diagnosis=_text(facts.alert, "diagnosis", "cause"), sentence=_text(facts.alert, "diagnosis", "sentence"),
        alerts_before_change=facts.alerts_before_change, verdict=str(facts.verdict.get("outcome", "none")),
        requests_sent=len(answered) + facts.failed, requests_repeated=sum(a.tries > 1 for a in answered), requests_failed=facts.failed,
        captures_stored=facts.captures_stored, labels_sent=facts.labels_sent, labels_stored=facts.labels_stored,
        ledger_entries=facts.ledger_entries, versions=_told(facts, answered), seconds=round(facts.seconds, 1),
    )  # fmt: skip


def score_of(answered: Sequence[Answered]) -> Score | None:
    """Over some answers; None without any."""
    found = interval(np.array([a.score for a in answered]), alpha=ALPHA)
    if found is None:
        return None
    return Score(value=round(found.mean, 4), lower=round(found.lower, 4), upper=round(found.upper, 4), events=found.row_count)


def _surely_above(after: Score | None, during: Score | None) -> bool:
    return after is not None and during is not None and after.lower > during.upper


def _between(answered: Sequence[Answered], start: datetime | None, stop: datetime | None) -> int | None:
    if start is None or stop is None:
        return None
    return sum(start <= a.answered_at < stop for a in answered)


def _instant(plain: object) -> datetime | None:
    return datetime.fromisoformat(plain) if isinstance(plain, str) else None


def _text(record: dict[str, object], *path: str) -> str:
    value: object = record
    for name in path:
        value = value.get(name, "") if isinstance(value, dict) else ""
    return str(value)


def _told(facts: Facts, answered: Sequence[Answered]) -> tuple[VersionTold, ...]:
    return tuple(
        VersionTold(
            number=int(str(v["number"])), rung=str(v["rung"]), digest=str(v["digest"]),
            answered=sum(a.adapter_digest == v["digest"] for a in answered),
        )
        for v in facts.versions
    )  # fmt: skip
