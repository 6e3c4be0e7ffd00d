"""What a monitor could have seen by now: the smallest change it would have found nine times in ten, and what more it needs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.scorers import Scorers
from holdfast.domain.statistics.sensitivity import TAIL, Bets, Watched, rows_to_see, smallest_rise, smallest_shift

TWO_POINTS = 0.02
"""The rise of the error rate that one wants to see."""
AIMS: Mapping[str, str] = {
    "embedding": "lie farther out, or farther along a main direction, than 99 of 100 known ones",
    "novelty": "are less like anything known than 99 of 100 known ones",
    "text": "are longer, shorter or stranger than 99 of 100 known ones",
    "label_mix": "get an answer as rare as 1 in 100 was",
    "confidence": "are answered with more, or less, doubt than 99 of 100 known ones",
}
"""Monitor to what the rows of a change do, in words after `rows that`."""


def sight_of(name: str, scorers: Scorers, event_count: int, log_threshold: float) -> tuple[dict[str, float], str]:
    """Numbers for a reading's detail, and the same in words. Of `slice_mix` nothing is known before its traffic is."""
    if name == "quality":
        return _errors(scorers.calibration[name][0], event_count, log_threshold)
    if name == "embedding_shift":
        return _shift(scorers, event_count, log_threshold)
    if name not in AIMS:
        return {}, "it ranks among its own traffic, since a reference has no slices: it finds a change after a quiet time"
    rows, components = int(scorers.calibration[name][0].sum()), len(scorers.edges[name])
    bets: Bets = "ladders" if name == "novelty" else "steps"
    watched = Watched(known_rows=rows, base=TAIL, log_threshold=log_threshold, components=components, bets=bets)
    least = smallest_rise(watched, event_count)
    if least is None:
        return {}, "too few events to have found any change yet"
    return {"smallest_share": least}, f"would have found {least:.1%} more rows that {AIMS[name]}"


def _errors(counts: NDArray[np.int64], event_count: int, log_threshold: float) -> tuple[dict[str, float], str]:
    rows = int(counts.sum())
    watched = Watched(known_rows=rows, base=(int(counts[1]) + 1) / (rows + 2), log_threshold=log_threshold, bets="odds")
    least, needed = smallest_rise(watched, event_count), rows_to_see(watched, TWO_POINTS)
    detail = {} if least is None else {"smallest_rise": least}
    seen = (
        "too few labels to have found any rise yet" if least is None else f"would have found a rise of errors by {100 * least:.1f} points"
    )
    if needed is None:
        return detail, f"{seen}; two points are too few to see beside {rows:,} known rows, however many labels come"
    more = max(0, needed - event_count)
    detail["labels_to_two_points"] = float(more)
    return detail, f"{seen}; {more:,} labels more would show two" if more else seen


def _shift(scorers: Scorers, event_count: int, log_threshold: float) -> tuple[dict[str, float], str]:
    least = None if scorers.witness is None else smallest_shift(scorers.witness, log_threshold, event_count)
    if least is None:
        return {}, "too few events to have learned a direction and bet on it yet"
    return {"smallest_shift": least}, f"would have found a move of all embeddings by {least:.1f} deviations in any direction"
