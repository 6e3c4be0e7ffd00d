"""Shares that moved, with their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from holdfast.domain.diagnosis.case import Case, ShareChange
from holdfast.domain.statistics.confidence import two_shares

MOST_SHOWN = 8
LEAST_MOVED = 0.02
"""A share that has not surely moved by more than this is not told."""


def share_change(name: str, now: tuple[int, int], before: tuple[int, int]) -> ShareChange:
    """Shares of (hits, rows) now and before.

    >>> found = share_change("billing", (50, 100), (10, 100))
    >>> found.before, found.now, 0.2 < found.lower < 0.4 < found.upper < 0.6
    (0.1, 0.5, True)
    """
    lower = two_shares(*now, *before)[1]
    upper = -two_shares(*before, *now)[1]
    return ShareChange(name=name, before=_share(before), now=_share(now), lower=lower, upper=upper)


def moved(case: Case) -> tuple[ShareChange, ...]:
    """Predicted labels and values of slices whose share has surely moved, the surest first. Slices need traffic from before."""
    reference = case.reference.calibration
    found = _moved("label", [c.prediction.label for c in case.recent], reference.predictions)
    keys = sorted({key for c in (*case.recent, *case.before) for key in c.slices})
    for key in keys[:MOST_SHOWN] if case.before else []:
        found += _moved(key, [c.slices.get(key, "(none)") for c in case.recent], [c.slices.get(key, "(none)") for c in case.before])
    return tuple(sorted(found, key=lambda c: (-sureness(c), c.name))[:MOST_SHOWN])


def sureness(change: ShareChange) -> float:
    """By how much a share has surely moved, in either direction; 0 or below when it may not have."""
    return max(change.lower, -change.upper)


def _moved(kind: str, now: Iterable[str], before: Iterable[str]) -> list[ShareChange]:
    ours, theirs = Counter(now), Counter(before)
    rows, base_rows = ours.total(), theirs.total()
    changes = [share_change(f"{kind} {v}"[:80], (ours[v], rows), (theirs[v], base_rows)) for v in ours.keys() | theirs.keys()]
    return [change for change in changes if sureness(change) > LEAST_MOVED]


def _share(part: tuple[int, int]) -> float:
    return part[0] / part[1] if part[1] else 0.0
