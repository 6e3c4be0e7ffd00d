"""What a monitor says that it could have seen agrees with what it does see on simulated streams."""

from __future__ import annotations

import math

import numpy as np
import pytest

from holdfast.domain import monitors, scorers
from holdfast.domain.bets import bet_count, bets_on
from holdfast.domain.sights import sight_of
from holdfast.domain.statistics import e_detector
from holdfast.domain.statistics.conformal import p_values
from holdfast.domain.statistics.sensitivity import Bets, Watched, rows_to_see, smallest_rise
from holdfast.domain.tasks import MonitoringPolicy
from holdfast.testing.builders import a_reference_window
from holdfast.testing.streams import a_stream

LOG_THRESHOLD = math.log(80_000)
FITTED = scorers.fit(a_reference_window(row_count=400))


def _found(name: str, watched: Watched, rows: int, rise: float, replicates: int = 60) -> float:
    """Share of streams in which a monitor of one component alarms: its rows are high (bin 1) or not."""
    found, share = 0, watched.base + rise
    for seed in range(replicates):
        random = np.random.default_rng([seed, rows])
        high = round(watched.known_rows * watched.base)
        counts = np.array([[watched.known_rows - high, high]])
        bins = (random.random(rows) < share).astype(np.int64)
        p = p_values(counts[0], bins, random.random(rows))[0][:, None]
        bets, _ = bets_on(name, p, bins[:, None], counts, np.zeros((1, e_detector.CELLS)))
        detector = e_detector.fresh(1, bet_count(name))
        found += e_detector.advance(detector, bets, range(1, rows + 1), watched.log_threshold).alarm_seq > 0
    return found / replicates


@pytest.mark.parametrize(("name", "bets", "base"), [("quality", "odds", 0.08), ("novelty", "ladders", 0.01), ("confidence", "steps", 0.01)])
@pytest.mark.parametrize(("known", "rows"), [(200, 300), (2_000, 300), (2_000, 2_000)])
def test_the_smallest_rise_is_found_nine_times_in_ten_and_a_third_of_it_seldom(
    name: str, bets: Bets, base: float, known: int, rows: int
) -> None:
    watched = Watched(known_rows=known, base=base, log_threshold=LOG_THRESHOLD, bets=bets)
    least = smallest_rise(watched, rows)
    assert least is not None
    assert _found(name, watched, rows, least) >= 0.8
    assert _found(name, watched, rows, least / 3) <= 0.5


def test_more_labels_let_smaller_rises_be_seen_and_a_small_reference_never_shows_two_points() -> None:
    many, few = (Watched(known_rows=n, base=0.08, log_threshold=LOG_THRESHOLD, bets="odds") for n in (20_000, 100))
    rises = [smallest_rise(many, n) or 1.0 for n in (100, 1_000, 10_000)]
    assert rises == sorted(rises, reverse=True)
    assert rows_to_see(few, 0.02) is None
    needed = rows_to_see(many, 0.05)
    assert needed is not None
    assert (smallest_rise(many, needed) or 1.0) == pytest.approx(0.05, abs=0.005)


def test_before_any_event_no_change_could_have_been_seen() -> None:
    assert smallest_rise(Watched(known_rows=400, base=0.08, log_threshold=LOG_THRESHOLD, bets="odds"), 0) is None
    assert {name: dict(sight_of(name, FITTED, 0, LOG_THRESHOLD)[0]) for name in scorers.OF_CAPTURES} == {n: {} for n in scorers.OF_CAPTURES}


def test_every_reading_carries_the_smallest_change_and_says_it_in_words() -> None:
    policy, rows = MonitoringPolicy(run_length_events=10_000), a_stream(600, 1)
    states = monitors.observe(monitors.start(FITTED), FITTED, [row.capture for row in rows], policy)
    read = {r.monitor: r for r in monitors.readings(monitors.observe_labels(states, FITTED, rows, policy), FITTED, policy)}
    assert 0.05 < read["quality"].detail["smallest_rise"] < 0.3
    assert read["quality"].note.startswith("would have found a rise of errors by ")
    assert 0.02 < read["novelty"].detail["smallest_share"] < 0.2
    assert 0.1 < read["embedding_shift"].detail["smallest_shift"] < 2.0
    assert all(reading.note for reading in read.values())


def test_the_smallest_shift_is_found_by_the_learned_direction() -> None:
    detail, _ = sight_of("embedding_shift", FITTED, 512, LOG_THRESHOLD)
    policy, found = MonitoringPolicy(run_length_events=10_000), 0
    for seed in range(20):
        captures = [row.capture for row in a_stream(512, seed, shift=detail["smallest_shift"] * 1.5)]
        states = monitors.observe(monitors.start(FITTED), FITTED, captures, policy)
        found += states["embedding_shift"].detector.alarm_seq > 0
    assert found >= 16
