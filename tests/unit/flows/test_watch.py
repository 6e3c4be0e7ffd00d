"""Watch: every capture and label of the champion counts once; reports come by the window and never alarm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from math import log
from typing import Literal

import pytest

from holdfast.domain.ids import TaskName
from holdfast.domain.monitors import MonitorSet
from holdfast.domain.scorers import NAMES, OF_CAPTURES, budget_share
from holdfast.domain.windows import WindowRows
from holdfast.errors import NotFound, PartUnavailable
from holdfast.flows.account import fleet_account
from holdfast.flows.watch import of_version, report, watch
from holdfast.ports import House
from holdfast.testing.builders import TASK, a_capture, a_contract, a_digest, a_house, an_alert, an_assignment
from holdfast.testing.clock import NOON, SteppedClock
from holdfast.testing.streams import a_stream, a_watched_house, crown, send
from holdfast.testing.twins import ListReporter


class BrokenReporter:
    """A reporter whose library fails."""

    def report(
        self, task: TaskName, reference: WindowRows, current: WindowRows, *, at: datetime, figures: Mapping[str, float] | None = None
    ) -> tuple[Mapping[str, float], str]:
        """See the port."""
        raise PartUnavailable(part="Evidently", reason="the column is constant")


def _watched(house: House) -> MonitorSet:
    found = watch(house, TASK)
    assert found is not None
    return found


def _events(seen: MonitorSet) -> dict[str, int]:
    return {r.monitor: r.event_count for r in seen.readings}


def _status(seen: MonitorSet) -> dict[str, str]:
    return {r.monitor: r.status for r in seen.readings}


def _kinds(house: House) -> list[str]:
    with house.unit_of_work() as uow:
        return [entry.kind for entry in uow.ledger.entries()]


def test_a_task_without_a_champion_is_not_watched() -> None:
    house = a_house()
    with house.unit_of_work() as uow:
        uow.contracts.put(a_contract(), NOON)
        uow.commit()
    assert watch(house, TASK) is None
    assert report(house, TASK) is None


def test_the_first_look_says_not_enough_data() -> None:
    house, digest = a_watched_house()
    seen = _watched(house)
    assert set(_status(seen).values()) == {"not enough data"}
    assert (seen.adapter_digest, seen.version) == (digest, 1)


def test_every_capture_and_label_counts_once_however_often_one_looks() -> None:
    house, digest = a_watched_house()
    send(house, a_stream(150, 1, digest=digest))
    seen = _watched(house)
    assert set(_events(seen).values()) == {150}
    assert _watched(house) == seen
    send(house, a_stream(50, 2, digest=digest), labels=False)
    assert _events(_watched(house)) == dict.fromkeys(OF_CAPTURES, 200) | {"quality": 150}


def test_more_than_a_page_is_read_in_one_look_and_gives_the_same_states() -> None:
    rows = a_stream(2_300, 3)
    whole, digest = a_watched_house()
    send(whole, [replace(r, capture=replace(r.capture, adapter_digest=digest)) for r in rows])
    parts, _ = a_watched_house()
    for n in range(0, 2_300, 460):
        send(parts, [replace(r, capture=replace(r.capture, adapter_digest=digest)) for r in rows[n : n + 460]])
        _watched(parts)
    assert _watched(whole).states == _watched(parts).states


def test_captures_of_other_versions_and_shadow_copies_are_passed_over() -> None:
    house, digest = a_watched_house()
    shadows = [replace(row, capture=replace(row.capture, route="shadow")) for row in a_stream(30, 5, digest=digest)]
    send(house, [*a_stream(40, 4, digest=a_digest("other")), *shadows, *a_stream(25, 6, digest=digest)])
    seen = _watched(house)
    assert set(_events(seen).values()) == {25}
    assert seen.capture_cursor == 95


def test_a_change_ends_in_an_alarm() -> None:
    house, digest = a_watched_house()
    send(house, a_stream(300, 7, digest=digest))
    _watched(house)
    send(house, a_stream(200, 8, digest=digest, shift=3.0, share_right=0.4))
    status = _status(_watched(house))
    assert status["embedding"] == status["quality"] == "alarm"


def test_a_save_that_another_worker_overtook_is_dropped() -> None:
    house, digest = a_watched_house()
    send(house, a_stream(30, 9, digest=digest))
    _watched(house)
    send(house, a_stream(30, 10, digest=digest))

    class Racing:
        """The clock is read just before the save: another worker comes first."""

        done = False

        def __call__(self) -> datetime:
            if not self.done:
                self.done = True
                _watched(house)
            return NOON

    seen = _watched(replace(house, clock=Racing()))
    assert set(_events(seen).values()) == {60}
    assert seen.version == 2


def test_a_new_champion_begins_where_the_old_one_was_read_to() -> None:
    house, first = a_watched_house()
    send(house, a_stream(60, 11, digest=first))
    before = _watched(house)
    second = crown(house, "second")
    send(house, a_stream(40, 12, digest=second))
    seen = _watched(house)
    assert (seen.adapter_digest, set(_events(seen).values())) == (second, {40})
    assert seen.capture_cursor == before.capture_cursor + 40


@pytest.mark.parametrize("state", ["resolved", "false alarm"])
def test_a_person_who_closes_an_alert_lets_its_monitors_begin_anew_once(state: Literal["resolved", "false alarm"]) -> None:
    house, digest = a_watched_house()
    send(house, a_stream(200, 13, digest=digest, shift=3.0))
    assert _status(_watched(house))["embedding"] == "alarm"
    with house.unit_of_work() as uow:
        uow.alerts.put(an_alert(adapter_digest=digest, monitors=("embedding",), state=state))
        uow.commit()
    assert _status(_watched(house))["embedding"] == "not enough data"
    assert _kinds(house).count("monitor.restarted") == 1
    _watched(house)
    assert _kinds(house).count("monitor.restarted") == 1


def test_a_reference_that_cannot_be_read_is_an_error_and_saves_nothing() -> None:
    house = a_house()
    with house.unit_of_work() as uow:
        uow.contracts.put(a_contract(), NOON)
        uow.assignments.put(an_assignment(generation=uow.assignments.next_generation()), expected_generation=None)
        uow.commit()
    with pytest.raises(NotFound):
        watch(house, TASK)
    with house.unit_of_work() as uow:
        assert uow.monitors.get(TASK, a_digest()) is None


def test_a_report_is_made_of_each_full_window_with_the_labels_that_are_known() -> None:
    house, digest = a_watched_house()
    assert isinstance(house.reporter, ListReporter)
    rows = a_stream(150, 14, digest=digest)
    send(house, rows, labels=False)
    house.log.label([row.label for row in rows[:20]])
    _watched(house)
    made = report(house, TASK)
    assert made is not None
    assert (made.first_seq, made.last_seq, made.row_count, made.labelled_count) == (1, 100, 100, 20)
    assert len(house.reporter.calls[0].reference) == 400
    figures = house.reporter.calls[0].figures
    assert figures.keys() == {f"evidence of {name}" for name in NAMES} | {"estimated accuracy"}
    assert all(0 <= value < 1 for value in figures.values())
    assert made.estimate is not None and (made.estimate.row_count, made.estimate.label_count) == (100, 20)
    assert made.estimate.value is not None and made.estimate.lower < 0.92 < made.estimate.upper
    assert report(house, TASK) is None
    send(house, a_stream(50, 15, digest=digest))
    second = report(house, TASK)
    assert second is not None and second.first_seq == 101
    with house.unit_of_work() as uow:
        assert len(uow.reports.of_task(TASK)) == 2


def test_metrics_that_are_not_finite_are_left_out() -> None:
    house, digest = a_watched_house(reporter=ListReporter({"drifted_share": float("nan"), "p": 0.5}))
    send(house, a_stream(100, 14, digest=digest))
    _watched(house)
    made = report(house, TASK)
    assert made is not None and dict(made.metrics) == {"p": 0.5}


def test_a_failing_report_is_written_down_and_changes_no_reading() -> None:
    house, digest = a_watched_house(reporter=BrokenReporter())
    send(house, a_stream(100, 14, digest=digest))
    before = _watched(house)
    assert report(house, TASK) is None
    assert report(house, TASK) is None
    assert _kinds(house) == ["report.failed"]
    assert _watched(house).readings == before.readings


def test_only_answers_whose_version_was_drawn_by_chance_speak_for_it() -> None:
    captures = [a_capture(n, route=route) for n, route in enumerate(("champion", "canary", "pinned", "shadow"), start=1)]
    assert [c.route for c in of_version(captures, a_digest())] == ["champion", "canary"]
    assert of_version(captures, a_digest("other")) == []


def test_a_task_that_arrives_lessens_the_share_of_the_others_and_their_evidence_keeps_its_worth() -> None:
    house, digest = a_watched_house(fleet_run_length_events=20_000.0)
    send(house, a_stream(60, 41, digest=digest))
    alone = _watched(house)
    with house.unit_of_work() as uow:
        uow.contracts.put(a_contract(task=TaskName("second"), monitoring=replace(a_contract().monitoring, weight=3.0)), NOON)
        generation = uow.assignments.next_generation()
        uow.assignments.put(an_assignment(task=TaskName("second"), generation=generation), expected_generation=None)
        uow.commit()
    assert isinstance(house.clock, SteppedClock)
    house.clock.step(10)
    send(house, a_stream(1, 42, first_seq=61, digest=digest), labels=False)
    beside = _watched(house)
    before, after = ({r.monitor: r for r in seen.readings} for seen in (alone, beside))
    assert before["quality"].log_threshold == pytest.approx(log(20_000 / budget_share("quality")))
    assert after["quality"].log_threshold == pytest.approx(log(80_000 / budget_share("quality")))
    assert after["quality"].spent == before["quality"].spent == pytest.approx(60 / 20_000 * budget_share("quality"))
    assert after["confidence"].spent == pytest.approx(before["confidence"].spent + 1 / 80_000 * budget_share("confidence"))
    gap = [r.log_evidence - r.log_threshold for r in (before["quality"], after["quality"])]
    assert before["quality"].log_evidence == 0.0 or gap[0] == pytest.approx(gap[1])


def test_a_monitor_that_begins_anew_goes_on_with_its_account() -> None:
    house, digest = a_watched_house()
    send(house, a_stream(200, 43, digest=digest, share_right=0.2))
    seen = _watched(house)
    assert _status(seen)["quality"] == "alarm"
    spent = {r.monitor: r.spent for r in seen.readings}
    with house.unit_of_work() as uow:
        uow.alerts.put(an_alert(adapter_digest=digest, monitors=("quality",), state="false alarm"))
        uow.commit()
    again = {r.monitor: r for r in _watched(house).readings}
    assert (again["quality"].event_count, again["quality"].spent) == (0, spent["quality"])
    assert spent["quality"] > 0


def test_the_account_of_the_fleet_sums_what_every_version_spent() -> None:
    house, first = a_watched_house(fleet_run_length_events=20_000.0)
    send(house, a_stream(60, 44, digest=first))
    _watched(house)
    second = crown(house, "second")
    send(house, a_stream(40, 45, first_seq=61, digest=second))
    _watched(house)
    account = fleet_account(house)
    embedding = next(line for line in account.monitors if line.reading.monitor == "embedding")
    assert embedding.event_count == 100
    assert embedding.spent == pytest.approx(100 / 20_000 * budget_share("embedding"))
    assert account.spent <= 100 / 20_000 * (1 + 1e-9)
    assert account.false_alarms_per_million_events == pytest.approx(50.0)
