"""The states of a task: what needs a person, what heals itself, and what is not known."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from holdfast.api.console.sentence import fleet_sentence
from holdfast.api.series import LabelledRow, SeriesCache, windows_of
from holdfast.api.standing import Standing, TaskFacts, facts_of, standing_of
from holdfast.domain.diagnosis import Diagnosis
from holdfast.domain.ids import TaskName
from holdfast.domain.tasks import PromotionPolicy, RetrainingPolicy
from holdfast.testing.clock import NOON
from holdfast.testing.record_builders import a_capture, a_digest, a_label, a_replica_report, a_retraining, an_alert


def of(place: Any, task: str, **changes: Any) -> Standing:
    """The standing of a seeded task with some of its facts changed."""
    facts = facts_of(place.house, TaskName(task))
    return standing_of(replace(facts, **changes), place.clock(), silence_s=15.0)


def facts(place: Any, task: str) -> TaskFacts:
    """The facts of a seeded task."""
    return facts_of(place.house, TaskName(task))


def test_a_version_that_no_replica_can_load_needs_a_person(fleet: Any) -> None:
    assignment = facts(fleet, "quiet").assignment
    assert assignment is not None
    found = of(fleet, "quiet", assignment=replace(assignment, stuck_reason="fingerprint differs"))
    assert (found.state, found.deed) == ("needs you", "roll back")
    assert "fingerprint differs" in found.why


def test_silent_replicas_need_a_person_and_none_at_all_is_not_called_silence(fleet: Any) -> None:
    old = a_replica_report(reported_at=fleet.clock() - timedelta(minutes=5))
    assert "5 min" in of(fleet, "quiet", replicas=(old,)).why
    assert of(fleet, "quiet", replicas=()).state == "healthy"


def test_a_passed_candidate_waits_for_a_person_only_when_the_contract_says_so_or_it_is_the_first(fleet: Any) -> None:
    drifted = facts(fleet, "tickets")
    assert of(fleet, "tickets").deed == "promote"
    automatic = replace(drifted.contract, promotion=PromotionPolicy(mode="automatic"))
    assert of(fleet, "tickets", contract=automatic).state == "healing"
    assert drifted.verdict is not None
    first = replace(drifted.retrainings[0], champion_digest=None)
    verdict = replace(drifted.verdict, champion=None)
    found = of(fleet, "tickets", contract=automatic, assignment=None, retrainings=(first,), verdict=verdict)
    assert (found.state, found.deed) == ("needs you", "promote")


def test_a_first_version_is_starting_and_heals_nothing(fleet: Any) -> None:
    training = a_retraining(3, task=TaskName("fresh"), state="training", progress=0.3, champion_digest=None)
    found = of(fleet, "fresh", retrainings=(training,))
    assert (found.state, found.step, found.deed_text) == ("starting", "training 30%", "See progress")
    assert of(fleet, "quiet", route=None).state == "starting", "its first champion warms"
    assert of(fleet, "quiet", retrainings=(training,)).state == "healing"


def test_what_follows_a_diagnosis_begins_a_new_sentence(fleet: Any) -> None:
    bare = Diagnosis(cause="concept change", action="retrain", sentence="most often sales answered as billing")
    found = of(fleet, "tickets", open_alerts=(an_alert(diagnosis=bare),))
    assert found.why == "Most often sales answered as billing. The gate passed v2; it waits for you."


def test_a_verdict_that_expired_is_not_offered(fleet: Any) -> None:
    verdict = facts(fleet, "tickets").verdict
    assert verdict is not None
    assert of(fleet, "tickets", verdict=replace(verdict, expires_at=fleet.clock())).deed != "promote"


@pytest.mark.parametrize(
    ("action", "mode", "state", "deed"),
    [
        ("retrain", "automatic", "at risk", "label"),
        ("retrain", "suggest", "needs you", "retrain"),
        ("ask for labels", "automatic", "needs you", "label"),
        ("roll back", "automatic", "needs you", "roll back"),
        ("wait", "automatic", "needs you", "look"),
    ],
)
def test_an_alert_asks_for_the_action_that_fits_its_cause(fleet: Any, action: str, mode: str, state: str, deed: str) -> None:
    alert = an_alert()
    alert = replace(alert, diagnosis=replace(alert.diagnosis, action=action))  # type: ignore[arg-type]
    contract = replace(facts(fleet, "quiet").contract, retraining=RetrainingPolicy(mode=mode))  # type: ignore[arg-type]
    found = of(fleet, "quiet", open_alerts=(alert,), contract=contract)
    assert (found.state, found.deed) == (state, deed)
    failed = a_retraining(alert_id=alert.alert_id, state="failed", error="the disk is full")
    held = of(fleet, "quiet", open_alerts=(alert,), contract=contract, retrainings=(failed,))
    assert (held.state, held.step) == ("needs you", "held")
    assert "the disk is full" in held.why


def test_without_labels_quality_is_unknown(fleet: Any) -> None:
    quality = facts(fleet, "fresh").quality
    found = of(fleet, "quiet", quality=quality)
    assert (found.state, found.deed) == ("unknown", "label")
    assert of(fleet, "quiet", quality=quality, capture_count=0).state == "unknown"


def test_captures_that_wait_unread_are_told_as_a_stalled_loop(fleet: Any) -> None:
    drifted = facts(fleet, "tickets")
    assert drifted.monitors is not None
    behind = replace(drifted, monitors=replace(drifted.monitors, capture_cursor=1, updated_at=NOON), retrainings=())
    rows = [(behind, of(fleet, "tickets"))]
    said = fleet_sentence(rows, fleet.clock(), watch_s=2.0, silence_s=15.0)
    assert (said.loop_ok, said.loop) == (False, "loop stalled: captures wait unread")
    assert fleet_sentence([], fleet.clock(), watch_s=2.0, silence_s=15.0).loop == "loop idle"


def test_the_series_reads_on_and_a_newer_label_replaces_the_older(place: Any) -> None:
    log, cache, task = place.house.log, SeriesCache(), TaskName("tickets")
    log.append([a_capture(n) for n in range(1, 31)])
    assert cache.labelled(place.house, task).points == ()
    log.label([a_label(n) for n in range(1, 21)])
    first = cache.labelled(place.house, task)
    assert [(p.value, p.row_count) for p in first.points] == [(1.0, 20)]
    log.label([a_label(3, value="returns"), a_label(25)])
    second = cache.labelled(place.house, task)
    assert sum(p.row_count for p in second.points) == 21
    assert [r.seq for r in second.rows if r.wrong] == [3]
    assert second == SeriesCache().labelled(place.house, task)


@pytest.mark.parametrize("count", [0, 1, 19, 20, 29, 31, 400, 4_000])
def test_windows_hold_every_row_once_and_their_interval_holds_the_share(count: int) -> None:
    rows = [
        LabelledRow(seq=n, captured_at=NOON + timedelta(seconds=n), labelled_at=NOON, adapter=a_digest(), label="x", score=float(n % 3 > 0))
        for n in range(count)
    ]
    points = windows_of(rows)
    assert sum(p.row_count for p in points) == count
    assert len(points) <= 41
    assert all(0 <= p.lower <= p.value <= p.upper <= 1 for p in points)
