"""E-detectors: bets are fair, run lengths hold, and a state goes on bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.domain.records import canonical
from holdfast.domain.statistics import e_detector
from holdfast.domain.statistics.e_detector import Detector, advance, dump, fresh, learned_bets, load, odds_bets, step_bets


def _same(one: Detector, other: Detector) -> bool:
    return canonical(dump(one)) == canonical(dump(other))


def _restarted(detector: Detector) -> Detector:
    return load(json.loads(canonical(dump(detector))))


def test_every_step_bet_is_fair() -> None:
    grid = (np.arange(100_000) + 0.5) / 100_000
    assert np.exp(step_bets(grid[:, None])).mean(axis=0) == pytest.approx(np.ones((1, 16)), abs=1e-3)


@pytest.mark.parametrize("theta", [0.002, 0.08, 0.5, 0.99])
def test_every_odds_bet_is_fair(theta: float) -> None:
    grid = (np.arange(100_000) + 0.5) / 100_000
    assert np.exp(odds_bets(grid[:, None], np.full(100_000, theta))).mean(axis=0) == pytest.approx(np.ones((1, 5)), abs=2e-3)


def test_the_learned_bet_is_fair_whatever_it_learned() -> None:
    _, weights = learned_bets(np.full((200, 1), 0.55), np.zeros((1, e_detector.CELLS)))
    grid = (np.arange(1_000) + 0.5) / 1_000
    values = [float(np.exp(learned_bets(np.array([[p]]), weights)[0])[0, 0, 0]) for p in grid]
    assert np.mean(values) == pytest.approx(1.0)
    assert max(values) > 3


def test_false_alarms_within_n_events_are_no_more_than_n_over_the_threshold() -> None:
    random, threshold, events, alarms = np.random.default_rng(5), 500.0, 250, 0
    for _ in range(400):
        p = random.random((events, 2))
        detector = advance(fresh(2, 16), step_bets(p), range(1, events + 1), float(np.log(threshold)))
        alarms += detector.alarm_seq > 0
    assert alarms / 400 <= events / threshold


def test_the_recursion_is_that_of_shiryaev_and_roberts() -> None:
    bets = np.log(np.array([2.0, 0.5, 3.0]))[:, None, None]
    detector = advance(fresh(1, 1), bets, [1, 2, 3], 100.0)
    assert np.exp(detector.evidence) == pytest.approx(((0 + 1) * 2 + 1) * 0.5 * 3 + 3)


@given(st.integers(0, 80), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_a_restart_at_any_point_goes_on_bit_for_bit(cut: int, seed: int) -> None:
    p = np.random.default_rng(seed).beta(0.5, 1.0, (80, 3))
    bets, seqs = step_bets(p), list(range(10, 90))
    whole = advance(fresh(3, 16), bets, seqs, 4.0)
    part = _restarted(advance(fresh(3, 16), bets[:cut], seqs[:cut], 4.0))
    assert _same(whole, advance(part, bets[cut:], seqs[cut:], 4.0))


def test_a_state_from_before_the_sums_goes_on_as_it_would_have() -> None:
    """Such a state held log R and the CUSUM themselves."""
    p = np.random.default_rng(3).beta(0.6, 1.0, (120, 2))
    half = advance(fresh(2, 16), step_bets(p[:60]), range(1, 61), 50.0)
    old = {"log_r": (half.total + half.anchor).tolist(), "cusum": half.cusum.tolist(), "start": half.start.tolist(), "event_count": 60,
           "evidence": half.evidence, "alarm_seq": 0, "onset_seq": 0}  # fmt: skip
    one, other = (advance(d, step_bets(p[60:]), range(61, 121), 50.0) for d in (half, load(old)))
    assert other.evidence == pytest.approx(one.evidence, rel=1e-12)
    assert other.cusum == pytest.approx(one.cusum, abs=1e-9) and (other.start == one.start).all()


@given(st.integers(0, 200), st.floats(0.3, 1.2))
@settings(max_examples=40, deadline=None)
def test_the_alarm_comes_at_the_event_at_which_one_at_a_time_reaches_the_threshold(seed: int, shape: float) -> None:
    p, threshold = np.random.default_rng(seed).beta(shape, 1.0, (150, 2)), 5.0
    whole, by_hand, seen = advance(fresh(2, 16), step_bets(p), range(1, 151), threshold), fresh(2, 16), []
    for i, bets in enumerate(step_bets(p), start=1):
        by_hand = advance(by_hand, bets[None], [i], np.inf)
        seen.append(by_hand.evidence)
    first = next((i for i, value in enumerate(seen, start=1) if value >= threshold), 0)
    assert whole.alarm_seq == first
    assert whole.evidence == (max(seen[first - 1 :]) if first else seen[-1])


def test_a_change_is_found_soon_and_its_onset_is_near() -> None:
    random = np.random.default_rng(6)
    p = np.concatenate([random.random((1_000, 1)), random.beta(0.3, 1.0, (400, 1))])
    detector = advance(fresh(1, 16), step_bets(p), range(1, 1_401), float(np.log(1e6)))
    assert 1_000 < detector.alarm_seq < 1_080
    assert abs(detector.onset_seq - 1_001) < 20


def test_an_alarm_stays_with_its_onset_when_all_is_quiet_again() -> None:
    random = np.random.default_rng(7)
    p = np.concatenate([np.full((40, 1), 0.001), random.random((2_000, 1))])
    detector = advance(fresh(1, 16), step_bets(p[:40]), range(1, 41), 10.0)
    later = advance(detector, step_bets(p[40:]), range(41, 2_041), 10.0)
    assert detector.alarm_seq == later.alarm_seq > 0
    assert detector.onset_seq == later.onset_seq == 1
    assert later.evidence >= detector.evidence


def test_a_change_to_the_middle_is_found_by_the_learned_bet() -> None:
    random = np.random.default_rng(8)
    p = np.concatenate([random.random((300, 1)), random.uniform(0.4, 0.6, (300, 1))])
    bets, _ = learned_bets(p, np.zeros((1, e_detector.CELLS)))
    assert 300 < advance(fresh(1, 1), bets, range(1, 601), float(np.log(1e6))).alarm_seq < 380


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bet_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        advance(fresh(1, 1), np.array([[[bad]]]), [1], 5.0)


def test_no_event_changes_nothing() -> None:
    assert _same(advance(fresh(1, 1), np.empty((0, 1, 1)), [], 5.0), fresh(1, 1))
