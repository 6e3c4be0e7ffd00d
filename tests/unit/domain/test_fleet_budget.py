"""The fleet's budget: shares sum to one, deposits never exceed it, evidence keeps its worth when shares change, and e-BH."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from holdfast.domain import monitors
from holdfast.domain.fleet_budget import FleetAccount, TaskBooks, account, in_fleet, shares
from holdfast.domain.ids import TaskName
from holdfast.domain.monitors import MonitorReading
from holdfast.domain.scorers import NAMES
from holdfast.domain.statistics.e_bh import FIRST, anytime_log_e, e_bh
from holdfast.domain.statistics.e_detector import advance, after, fresh, rescaled, step_bets
from holdfast.domain.tasks import MonitoringPolicy
from holdfast.testing.record_builders import an_alert

FLEET = 250_000.0


def _reading(name: str = "quality", **fields: object) -> MonitorReading:
    known: dict[str, object] = {"log_evidence": 1.0, "log_threshold": 13.0, "event_count": 100, "onset_seq": 0, "status": "quiet"}
    return MonitorReading(monitor=name, **(known | {"spent": 1e-4} | fields))  # type: ignore[arg-type]


def _books(name: str, *readings: MonitorReading, weight: float = 1.0) -> TaskBooks:
    return TaskBooks(task=TaskName(name), policy=MonitoringPolicy(weight=weight), readings=readings, earlier=(), alerts=())


def _suspects(found: FleetAccount) -> set[str]:
    return {line.task for line in found.monitors if line.suspicious}


def test_one_task_alone_keeps_what_its_contract_says_by_default() -> None:
    policy = MonitoringPolicy()
    assert in_fleet(policy, 1.0, FLEET) == policy


@pytest.mark.parametrize("count", [1, 3, 300])
def test_what_the_tasks_may_spend_sums_to_the_stated_budget_whatever_their_number_and_weights(count: int) -> None:
    found = account([_books(f"t{i}", weight=1.0 + i % 7) for i in range(count)], FLEET)
    assert found.per_million_events <= 4.0 * (1 + 1e-9)
    assert found.per_million_events == pytest.approx(4.0, rel=1e-3)  # run lengths are whole events
    assert math.fsum(line.share for line in found.monitors) == pytest.approx(1.0)


def test_a_heavier_task_alarms_at_a_lower_threshold() -> None:
    found = {str(line.task): line.log_threshold for line in account([_books("a", weight=3.0), _books("b")], FLEET).monitors}
    assert found["b"] - found["a"] == pytest.approx(math.log(3), abs=1e-4)


def test_a_contract_that_asks_for_fewer_false_alarms_keeps_that() -> None:
    assert in_fleet(MonitoringPolicy(run_length_events=10**9), 0.5, FLEET).run_length_events == 10**9


def test_without_a_budget_of_the_fleet_each_contract_counts_alone() -> None:
    found = account([_books("a"), _books("b")], 0.0)
    assert found.false_alarms_per_million_events is None
    assert all(line.log_threshold == monitors.log_threshold(MonitoringPolicy(), line.reading.monitor) for line in found.monitors)


def test_a_fleet_without_tasks_has_an_account_without_lines() -> None:
    found = account([], FLEET)
    assert (found.monitors, found.spent, found.task_count, shares({})) == ((), 0.0, 0, {})


def test_the_account_counts_every_version_and_every_alarm_and_puts_the_greatest_spender_first() -> None:
    alerts = (an_alert(monitors=("quality",), state="false alarm"), an_alert(monitors=("quality", "embedding"), state="open"))
    busy = replace(_books("b", _reading(spent=0.2)), earlier=(_reading(spent=0.3, event_count=900),), alerts=alerts)
    found = account([_books("a", _reading(spent=0.1)), busy], FLEET)
    first = found.monitors[0]
    assert (first.task, first.reading.monitor, first.event_count) == ("b", "quality", 1_000)
    assert [first.spent, found.spent] == pytest.approx([0.5, 0.6])
    assert [first.alarm_count, first.false_alarm_count, found.alarm_count, found.false_alarm_count] == [2, 1, 3, 1]
    assert len(found.monitors) == 2 * len(NAMES)


def test_a_detector_pays_for_each_event_up_to_its_alarm_and_no_longer() -> None:
    p = np.concatenate([np.full((4, 1), 0.5), np.full((60, 1), 0.001)])
    detector = advance(fresh(1, 16), step_bets(p), range(1, 65), math.log(1_000))
    assert 4 < detector.alarm_seq < 20
    assert detector.spent == pytest.approx(detector.alarm_seq / 1_000)


def test_a_detector_that_follows_another_goes_on_with_its_account() -> None:
    before = advance(fresh(1, 16), step_bets(np.full((10, 1), 0.5)), range(10), math.log(1_000))
    assert after(fresh(1, 16), before).spent == before.spent > 0


def test_evidence_keeps_its_worth_when_the_share_changes_and_only_later_events_cost_otherwise() -> None:
    p = np.random.default_rng(3).random((200, 1))
    before = advance(fresh(1, 16), step_bets(p[:100]), range(100), math.log(1_000))
    moved = rescaled(before, math.log(5_000))
    assert moved.evidence - moved.log_threshold == pytest.approx(before.evidence - before.log_threshold)
    went_on = advance(before, step_bets(p[100:]), range(100, 200), math.log(5_000))
    assert went_on.spent == pytest.approx(100 / 1_000 + 100 / 5_000)


def test_with_shares_that_change_the_detector_is_the_recursion_in_deposits() -> None:
    p, thresholds = np.random.default_rng(4).random((60, 1)), [1e6, 3e6, 2e5]
    detector, q = fresh(1, 16), np.zeros(16)
    for part, threshold in zip(np.split(p, 3), thresholds, strict=True):
        bets = step_bets(part)
        detector = advance(detector, bets, range(len(part)), math.log(threshold))
        for bet in np.exp(bets[:, 0]):
            q = (q + 1 / threshold) * bet
    assert math.exp(detector.evidence - detector.log_threshold) == pytest.approx(q.mean())


def test_false_alarms_of_a_fleet_in_which_shares_rise_and_fall_stay_below_its_deposits() -> None:
    random, alarms, spent = np.random.default_rng(5), 0, 0.0
    for _ in range(400):
        detector = fresh(1, 16)
        for threshold in (2_000.0, 500.0, 4_000.0, 250.0):
            detector = advance(detector, step_bets(random.random((50, 1))), range(1, 51), math.log(threshold))
        alarms, spent = alarms + (detector.alarm_seq > 0), spent + detector.spent
    assert 0 < alarms <= spent


def test_an_e_value_at_the_moment_somebody_likes_best_still_has_a_mean_of_at_most_one() -> None:
    """The look is chosen after seeing all of them: the highest e-value is reached at a stopping time as often as it exceeds 1/x."""
    random, exceeded = np.random.default_rng(6), 0
    for _ in range(300):
        p, detector, best = random.random((300, 1)), fresh(1, 16), -math.inf
        for i in range(0, 300, 10):
            detector = advance(detector, step_bets(p[i : i + 10]), range(i, i + 10), math.log(1e6))
            best = max(best, anytime_log_e(detector.evidence - detector.log_threshold, detector.spent))
        exceeded += best >= math.log(10)
    assert exceeded / 300 <= 1 / 10


def test_nothing_spent_is_no_evidence_and_more_spent_is_less() -> None:
    assert anytime_log_e(0.0, 0.0) == -math.inf
    assert anytime_log_e(0.0, FIRST) > anytime_log_e(0.0, 1e-3) > anytime_log_e(0.0, 1.0)


def test_e_bh_of_nothing_selects_nothing_and_what_is_not_a_number_is_refused() -> None:
    assert e_bh([], 0.1) == ()
    with pytest.raises(ValueError, match="not a number"):
        e_bh([1.0, math.nan], 0.1)


def test_many_tasks_that_move_at_once_are_suspected_sooner_than_one_alone() -> None:
    moved = [_reading(log_evidence=17.0, log_threshold=19.0, spent=1e-6)]
    alone = account([_books("a", *moved), *(_books(f"t{i}") for i in range(99))], FLEET)
    together = account([_books(f"t{i}", *(moved if i < 50 else ())) for i in range(100)], FLEET)
    assert _suspects(alone) == set()
    assert _suspects(together) == {f"t{i}" for i in range(50)}


def test_a_monitor_without_enough_data_is_never_suspected() -> None:
    assert _suspects(account([_books("a", _reading(log_evidence=99.0, status="not enough data", spent=1e-7))], FLEET)) == set()
