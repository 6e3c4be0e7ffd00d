"""The sentence on top of the fleet page: who needs a person, whether the loop keeps up, how fresh the data is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast.api.standing import Standing, TaskFacts, duration


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSentence:
    """The line on top of the fleet page."""

    needs_you: int
    task_count: int
    loop: str
    loop_ok: bool | None
    fresh: str


def fleet_sentence(rows: Sequence[tuple[TaskFacts, Standing]], now: datetime, *, watch_s: float, silence_s: float) -> FleetSentence:
    """How many tasks need a person, whether the loop keeps up, and how old the newest capture is."""
    newest = max((f.newest_capture_at for f, _ in rows if f.newest_capture_at), default=None)
    fresh = "no capture yet" if newest is None else f"data fresh {duration((now - newest).total_seconds())} ago"
    ok, loop = _loop_word(rows, now, patience_s=max(silence_s, 5 * watch_s))
    return FleetSentence(needs_you=sum(s.state == "needs you" for _, s in rows), task_count=len(rows), loop=loop, loop_ok=ok, fresh=fresh)


def _loop_word(rows: Sequence[tuple[TaskFacts, Standing]], now: datetime, *, patience_s: float) -> tuple[bool | None, str]:
    """Read off its work: captures that wait unread too long, or retrainings overdue, mean that it stands still."""
    late = now - timedelta(seconds=patience_s)
    overdue = [f.running for f, _ in rows if f.running and f.running.due_at < late and (f.running.lease_until or late) <= late]
    if overdue:
        return False, f"loop stalled: retraining due {duration((now - min(r.due_at for r in overdue)).total_seconds())} ago"
    unread = sum(f.lag or 0 for f, _ in rows if f.monitors and f.lag and f.monitors.updated_at < late)
    if unread:
        return False, "loop stalled: captures wait unread"
    never = [f for f, _ in rows if f.assignment and f.monitors is None and f.newest_capture_at]
    if never:
        return None, "loop has not read anything yet"
    return (True, "loop running") if any(f.monitors for f, _ in rows) else (None, "loop idle")
