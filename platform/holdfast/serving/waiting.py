"""What waits for a micro-batch: a question and its caller, who else asked of late, and how fast each task's line moves."""

from __future__ import annotations

import asyncio
import heapq
import math
from dataclasses import dataclass, field

Question = tuple[str, str]
"""Digest of the adapter, text."""
Answer = tuple[str, float, bytes, tuple[int, int], tuple[float, ...]]
"""Label, confidence, embedding as little-endian float16, tokens of the whole text and of what was read of it, and the confidence of each
label of a set or span of an extraction, in the order of the answer."""
COMPANY_S = 2.0
"""Whoever asked within so long may ask again at any moment, and finds the way not full of another's rows."""
LEVEL_ASKS = 8
RANK_S = 0.05
"""Levels are put in order no more often: with a thousand flows that takes a tenth of a millisecond."""
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
    """How much each flow that asked of late has outstanding when it asks: what tells a quiet one from a flood.

    The level of a flow is the average, over about its last `LEVEL_ASKS` questions, of what it had waiting and on its way, the new
    question included: 1 for whoever waits for each answer before the next question, 8 for eight such clients of one task.
    """

    def __init__(self) -> None:
        self._levels: dict[str, tuple[float, float]] = {}
        self._lowest: list[tuple[float, str]] = []
        """The two lowest levels of late, as of `_ranked_at`; two suffice to name the lowest other than a given flow's."""
        self._ranked_at = -math.inf

    def seen(self, flow: str, outstanding: int, now: float) -> None:
        """A flow asked, and has so much outstanding with it."""
        level, at = self._levels.pop(flow, (float(outstanding), -math.inf))
        newly = now - at >= COMPANY_S
        level = float(outstanding) if newly else level + (outstanding - level) / LEVEL_ASKS
        self._levels[flow] = (level, now)
        if newly:
            self._lowest = heapq.nsmallest(2, [*(one for one in self._lowest if one[1] != flow), (level, flow)])
        if len(self._levels) > FLOWS_KEPT:
            del self._levels[next(iter(self._levels))]  # the one that was silent longest

    def quietest_beside(self, flow: str, now: float) -> float:
        """The lowest level of the other flows that asked of late; infinite when there is none."""
        if now - self._ranked_at >= RANK_S:
            late = ((level, name) for name, (level, at) in self._levels.items() if now - at < COMPANY_S)
            self._lowest, self._ranked_at = heapq.nsmallest(2, late), now
        return next((level for level, name in self._lowest if name != flow), math.inf)


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
