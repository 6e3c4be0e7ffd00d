"""A clock that stands still until it is stepped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NOON = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
"""Where a stepped clock starts unless told otherwise."""


class SteppedClock:
    """Gives the same instant until somebody steps it.

    >>> clock = SteppedClock()
    >>> clock.step(90).isoformat()
    '2026-03-03T12:01:30+00:00'
    >>> clock() - NOON
    datetime.timedelta(seconds=90)
    """

    def __init__(self, start: datetime = NOON) -> None:
        self.now = start

    def __call__(self) -> datetime:
        return self.now

    def step(self, seconds: float) -> datetime:
        """Move on and return the new instant. Negative steps are allowed: clocks do jump back."""
        self.now += timedelta(seconds=seconds)
        return self.now
