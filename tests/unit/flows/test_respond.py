"""Respond: one alert per cause, at most one retraining at a time, and a ledger row only when something changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from holdfast.domain.alerts import Alert
from holdfast.domain.captures import LabelledCapture
from holdfast.domain.ids import AdapterDigest, RetrainingId
from holdfast.domain.ledger import verify
from holdfast.domain.retraining import Retraining, RetrainingState
from holdfast.domain.tasks import MonitoringPolicy, RetrainingPolicy
from holdfast.flows.respond import respond
from holdfast.flows.watch import watch
from holdfast.ports import House
from holdfast.testing.builders import TASK, a_contract
from holdfast.testing.clock import SteppedClock
from holdfast.testing.streams import a_stream, a_watched_house, crown, send
from holdfast.testing.twins import ListDoorbell

MONITORING = MonitoringPolicy(run_length_events=10_000)
BY_HAND = RetrainingId("rtr_by_hand")
PROMPT = RetrainingPolicy(min_labels=100, cool_down_s=60.0)


def _house(policy: RetrainingPolicy = PROMPT) -> tuple[House, AdapterDigest]:
    house, digest = a_watched_house(a_contract(monitoring=MONITORING, retraining=policy))
    _look(house, a_stream(300, 1, digest=digest))
    return house, digest


def _look(house: House, rows: Sequence[LabelledCapture] = (), *, labels: bool = True) -> Alert | None:
    send(house, rows, labels=labels)
    watch(house, TASK)
    return respond(house, TASK)


def _bad(digest: AdapterDigest, count: int = 200, seed: int = 2) -> list[LabelledCapture]:
    return a_stream(count, seed, digest=digest, share_right=0.4)


def _retrainings(house: House) -> tuple[Retraining, ...]:
    with house.unit_of_work() as uow:
        return uow.retrainings.of_task(TASK)


def _end(house: House, state: RetrainingState) -> None:
    with house.unit_of_work() as uow:
        running = uow.retrainings.of_task(TASK)[0]
        uow.retrainings.save(replace(running, state=state, ended_at=house.clock(), labels_used=200))
        uow.commit()


def _kinds(house: House) -> list[str]:
    with house.unit_of_work() as uow:
        assert verify(uow.ledger.entries()) == uow.ledger.count()
        return [entry.kind for entry in uow.ledger.entries()]


def _wait(house: House, seconds: float) -> None:
    assert isinstance(house.clock, SteppedClock)
    house.clock.step(seconds)


def _rings(house: House) -> list[tuple[str, ...]]:
    assert isinstance(house.doorbell, ListDoorbell)
    return house.doorbell.rings


def test_quiet_monitors_open_nothing() -> None:
    house, digest = _house()
    assert _look(house, a_stream(200, 3, digest=digest)) is None
    assert _kinds(house) == []


def test_lost_quality_opens_one_alert_and_starts_one_retraining_from_its_onset() -> None:
    house, digest = _house()
    alert = _look(house, _bad(digest))
    assert alert is not None
    assert (alert.state, alert.diagnosis.cause, alert.diagnosis.action) == ("open", "concept change", "retrain")
    (retraining,) = _retrainings(house)
    assert (retraining.alert_id, retraining.since_seq, retraining.requested_by) == (alert.alert_id, alert.onset_seq, "loop")
    assert abs(alert.onset_seq - 301) < 40
    assert _rings(house) == [("holdfast.advance_retraining", retraining.retraining_id)]
    assert _kinds(house) == ["alert.opened", "alert.diagnosed", "retraining.requested"]
    assert retraining.retraining_id in alert.response


def test_looking_again_changes_nothing() -> None:
    house, digest = _house()
    first = _look(house, _bad(digest))
    assert first is not None
    _wait(house, 100)
    assert _look(house) == first
    assert len(_rings(house)) == 1 and len(_kinds(house)) == 3


def test_too_few_labels_hold_the_retraining_and_say_so_once() -> None:
    house, digest = _house(replace(PROMPT, min_labels=400))
    alert = _look(house, _bad(digest))
    assert alert is not None
    assert "more labels are needed" in alert.response
    for seed in (4, 5):
        _look(house, _bad(digest, 30, seed))
    assert _kinds(house).count("retraining.held") == 1
    assert _retrainings(house) == ()
    _look(house, _bad(digest, 300, 6))
    assert len(_retrainings(house)) == 1


def test_input_drift_without_labels_asks_for_labels_and_retrains_once_quality_is_seen_to_be_lost() -> None:
    house, digest = _house()
    rows = a_stream(200, 7, digest=digest, shift=6.0, share_right=0.3)
    alert = _look(house, rows, labels=False)
    assert alert is not None
    assert (alert.diagnosis.cause, alert.diagnosis.action) == ("input drift", "ask for labels")
    assert _retrainings(house) == ()
    house.log.label([row.label for row in rows])
    later = _look(house)
    assert later is not None
    assert (later.alert_id, later.diagnosis.action) == (alert.alert_id, "retrain")
    assert "quality" in later.monitors
    assert len(_retrainings(house)) == 1
    assert _kinds(house).count("alert.opened") == 1 and _kinds(house).count("alert.diagnosed") == 2


def test_an_upstream_break_waits_however_many_labels_say_that_quality_is_lost() -> None:
    house, digest = _house()
    rows = [replace(row, capture=replace(row.capture, text="")) for row in _bad(digest)]
    alert = _look(house, rows)
    assert alert is not None
    assert (alert.diagnosis.cause, alert.diagnosis.action) == ("upstream break", "wait")
    assert _retrainings(house) == ()


def test_a_refused_retraining_is_followed_by_another_only_after_cool_down_and_new_labels() -> None:
    house, digest = _house()
    _look(house, _bad(digest))
    _end(house, "refused")
    _look(house, _bad(digest, 10, 8))
    assert len(_retrainings(house)) == 1
    _wait(house, 61)
    alert = _look(house)
    assert alert is not None and "to try again" in alert.response
    _look(house, _bad(digest, 80, 9))
    assert len(_retrainings(house)) == 2
    assert len({r.retraining_id for r in _retrainings(house)}) == 2


def test_a_new_champion_resolves_the_alert_of_the_old_one() -> None:
    house, digest = _house()
    alert = _look(house, _bad(digest))
    assert alert is not None
    _end(house, "promoted")
    crown(house, "second")
    assert _look(house) is None
    with house.unit_of_work() as uow:
        closed = uow.alerts.get(alert.alert_id)
        assert uow.alerts.unresolved() == ()
    assert closed.state == "resolved" and closed.resolved_at is not None
    assert _kinds(house)[-1] == "alert.resolved"


def test_an_alert_that_a_person_called_false_does_not_come_back_by_itself() -> None:
    house, digest = _house(replace(PROMPT, min_labels=10_000))
    alert = _look(house, _bad(digest))
    assert alert is not None
    with house.unit_of_work() as uow:
        uow.alerts.put(replace(alert, state="false alarm", resolved_at=house.clock()))
        uow.commit()
    assert respond(house, TASK) is None  # before the monitors began anew
    assert _look(house) is None
    with house.unit_of_work() as uow:
        assert [a.state for a in uow.alerts.of_task(TASK)] == ["false alarm"]


def test_an_acknowledged_alert_stays_acknowledged() -> None:
    house, digest = _house()
    alert = _look(house, _bad(digest))
    assert alert is not None
    with house.unit_of_work() as uow:
        uow.alerts.put(replace(alert, state="acknowledged"))
        uow.commit()
    later = _look(house, _bad(digest, 100, 10))
    assert later is not None and later.state == "acknowledged"


def test_where_the_contract_only_suggests_a_person_starts_it() -> None:
    house, digest = _house(replace(PROMPT, mode="suggest"))
    alert = _look(house, _bad(digest))
    assert alert is not None and "suggested" in alert.response
    assert _retrainings(house) == ()


def test_a_retraining_of_another_origin_that_runs_holds_this_one() -> None:
    house, digest = _house()
    with house.unit_of_work() as uow:
        now = house.clock()
        by_hand = Retraining(
            retraining_id=BY_HAND, task=TASK, alert_id=None, reason="by hand", requested_by="me", requested_at=now, since_seq=0,
            due_at=now + timedelta(seconds=1),
        )  # fmt: skip
        uow.retrainings.request(by_hand)
        uow.commit()
    alert = _look(house, _bad(digest))
    assert alert is not None and "is under way" in alert.response
    assert len(_retrainings(house)) == 1
