"""What waits for a micro-batch: a question and its caller, who else asked of late, and how fast each task's line moves."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

Question = tuple[str, str]
"""Digest of the adapter, text."""
Answer = tuple[str, float, bytes, tuple[int, int]]
"""Label, confidence, embedding as little-endian float16, tokens of the whole text and of what was read of it."""
COMPANY_S = 2.0
"""Whoever asked within so long may ask again at any moment, and finds the way not full of another's rows."""
RATE_S = 5.0
"""Time over which the rate of a line is averaged."""
FLOWS_KEPT = 4096
LONGEST_RETRY_S = 60
CHARS_PER_COST, MOST_COST = 256, 8
"""A text costs one, and one more for each 256 characters, up to what is read of it at all."""


@dataclass(eq=False, slots=True)
class Waiting:
    """One question and whoever waits for its answer."""

    question: Question
    deadline: float
    """On the clock of the event loop."""
    answered: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


def cost_of(question: Question) -> int:
    """What a question takes of a turn.

    >>> cost_of(("sha256:a", "short")), cost_of(("sha256:a", "x" * 600)), cost_of(("sha256:a", "x" * 20_000))
    (1, 3, 8)
    """
    return min(1 + len(question[1]) // CHARS_PER_COST, MOST_COST)


class Company:
    """Who asked of late and found no line of his own: the last two such flows, which suffices to name one other than a given one."""

    def __init__(self) -> None:
        self._last = self._before = ("", -math.inf)

    def seen(self, flow: str, now: float) -> None:
        """A flow asked that had nothing waiting."""
        if flow != self._last[0]:
            self._before = self._last
        self._last = (flow, now)

    def others(self, flow: str, now: float) -> bool:
        """Whether another such flow asked of late."""
        _, at = self._before if flow == self._last[0] else self._last
        return now - at < COMPANY_S


class Rates:
    """Rows per second that leave each line, averaged with exponential weights."""

    def __init__(self) -> None:
        self._rates: dict[str, tuple[float, float]] = {}

    def left(self, flow: str, count: int, now: float) -> None:
        """``count`` rows of a flow were answered or given up."""
        rate, at = self._rates.pop(flow, (0.0, now))
        self._rates[flow] = (rate * math.exp((at - now) / RATE_S) + count / RATE_S, now)
        if len(self._rates) > FLOWS_KEPT:
            del self._rates[next(iter(self._rates))]  # the one that was silent longest

    def seconds_for(self, flow: str, count: int, now: float) -> int:
        """Whole seconds, 1 to `LONGEST_RETRY_S`, in which ``count`` rows leave; 1 when nothing is known yet."""
        rate, at = self._rates.get(flow, (0.0, now))
        rate *= math.exp((at - now) / RATE_S)
        return min(max(1, math.ceil(count / rate)), LONGEST_RETRY_S) if rate > 1e-6 else 1
