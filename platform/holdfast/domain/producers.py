"""Producers number what they accept, so that what is missing from the log can be counted.

Of each producer the log keeps which numbers it has seen, as ranges: one range when nothing is missing, and one more for every hole. A
capture that is brought twice, or whose request id is in the log already, has been seen.

>>> with_numbers(((1, 3),), [7, 4, 5, 5])
((1, 5), (7, 7))
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

Ranges = tuple[tuple[int, int], ...]
"""First and last number of each, ascending, with a hole between any two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """One process that accepts captures, as the log knows it."""

    producer: str
    seen: Ranges
    last_at: datetime
    """When its newest capture was taken, of those that are known."""

    @property
    def highest(self) -> int:
        """The highest number seen."""
        return self.seen[-1][1] if self.seen else 0

    @property
    def seen_count(self) -> int:
        """Numbers that reached the log."""
        return sum(last - first + 1 for first, last in self.seen)

    @property
    def missing_count(self) -> int:
        """Numbers below the highest that did not: still on their way, set aside as unreadable, or lost."""
        return self.highest - self.seen_count

    @property
    def missing(self) -> Ranges:
        """Which those are."""
        return tuple((last + 1, first - 1) for (_, last), (first, _) in pairwise(((0, 0), *self.seen)) if first > last + 1)


def with_numbers(seen: Ranges, numbers: Iterable[int]) -> Ranges:
    """The ranges with these numbers in them."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted([*seen, *((number, number) for number in set(numbers))]):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)
