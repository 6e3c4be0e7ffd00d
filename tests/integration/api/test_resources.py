"""What each route answers, over a house of twins and the real flows."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from holdfast.domain.diagnosis import Diagnosis
from holdfast.domain.records import digest_of
from holdfast.domain.scorers import NAMES
from holdfast.errors import LeaseLost, StorageRefused
from holdfast.testing.memory_log import MemoryCaptureLog
from holdfast.testing.record_builders import LABELS, a_capture, a_contract, a_digest, a_verdict, a_version, an_alert, an_assignment

CONTRACT: dict[str, object] = {"task": "tickets", "labels": list(LABELS), "floor": 0.8}
Place = Any


def rows(count: int) -> list[dict[str, str]]:
    """Examples of three classes, each text once."""
    return [{"text": f"question {n} about {LABELS[n % 3]}", "label": LABELS[n % 3]} for n in range(count)]


def test_a_task_is_created_once_and_the_same_contract_again_changes_nothing(admin: TestClient) -> None:
    first, again = admin.post("/api/v1/tasks", json=CONTRACT), admin.post("/api/v1/tasks", json=CONTRACT)
    assert (first.status_code, again.status_code) == (201, 200)
    other = admin.post("/api/v1/tasks", json=CONTRACT | {"floor": 0.9})
    assert (other.status_code, other.json()["code"]) == (409, "already_exists")
    assert admin.post("/api/v1/tasks?replace=true", json=CONTRACT | {"floor": 0.9}).json()["floor"] == 0.9
    kinds = [row["kind"] for row in admin.get("/api/v1/ledger").json()]
    assert kinds == ["key.created", "task.created", "contract.changed"]
    assert [t["task"] for t in admin.get("/api/v1/tasks").json()] == ["tickets"]


def test_every_mistake_of_a_contract_is_told_with_its_place(admin: TestClient) -> None:
    answer = admin.post("/api/v1/tasks", json={"task": "Tickets", "labels": ["a"], "floor": 2, "retraining": {"min_labels": 1}})
    assert (answer.status_code, answer.json()["code"]) == (422, "contract_invalid")
    assert {p["place"] for p in answer.json()["problems"]} >= {"floor", "retraining.min_labels"}
    base = admin.post("/api/v1/tasks", json=CONTRACT | {"base": "gpt"})
    assert base.json()["problems"][0]["place"] == "base"
    assert admin.get("/api/v1/tasks").json() == []


def test_a_task_without_anything_is_told_as_unknown_and_never_as_zero(admin: TestClient) -> None:
    admin.post("/api/v1/tasks", json=CONTRACT)
    answer = admin.get("/api/v1/tasks/tickets")
    view = answer.json()
    assert answer.headers["etag"] == '"0"'
    assert (view["quality"]["overall"], view["champion"], view["assignment"]) == (None, None, None)
    assert (view["capture_count"], view["monitors"], view["standing"]["deed"]) == (0, [], "bring data")


def test_a_data_set_is_audited_and_frozen(admin: TestClient) -> None:
    admin.post("/api/v1/tasks", json=CONTRACT)
    answer = admin.post("/api/v1/tasks/tickets/datasets", json={"examples": [*rows(60), rows(1)[0]]})
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body["audit"]["duplicate_count"] == 1
    assert body["audit"]["label_counts"] == {"billing": 21, "delivery": 20, "returns": 20}
    assert body["snapshot"]["task"] == "tickets"
    assert [s["digest"] for s in admin.get("/api/v1/tasks/tickets/datasets").json()] == [body["snapshot"]["digest"]]


@pytest.mark.parametrize(
    ("bad", "word", "row"),
    [
        ({"text": "  ", "label": "billing"}, "empty", "row 31"),
        ({"text": "x" * 20_001, "label": "billing"}, "huge", "row 31"),
        ({"text": "a\u0000b", "label": "billing"}, "binary", "row 31"),
        ({"text": "a", "label": "refunds"}, "not one of the contract", "row 31"),
    ],
)
def test_one_bad_row_refuses_the_data_set_with_its_place_and_stores_nothing(
    admin: TestClient, bad: dict[str, str], word: str, row: str
) -> None:
    admin.post("/api/v1/tasks", json=CONTRACT)
    answer = admin.post("/api/v1/tasks/tickets/datasets", json={"examples": [*rows(30), bad]})
    assert (answer.status_code, answer.json()["code"]) == (422, "data_invalid")
    assert word in answer.json()["detail"]
    assert row in answer.json()["detail"]
    assert admin.get("/api/v1/tasks/tickets/datasets").json() == []


def test_a_mistake_is_named_by_the_place_that_the_example_came_with(admin: TestClient) -> None:
    admin.post("/api/v1/tasks", json=CONTRACT)
    bad = {"text": "a", "label": "refunds", "place": "line 33"}
    answer = admin.post("/api/v1/tasks/tickets/datasets", json={"examples": [*rows(30), bad]})
    assert "(at line 33)" in answer.json()["detail"]


def test_data_of_one_class_is_refused_and_a_dry_run_lists_every_mistake(admin: TestClient) -> None:
    admin.post("/api/v1/tasks", json=CONTRACT)
    one = {"examples": [{"text": f"t {n}", "label": "billing"} for n in range(20)]}
    assert "two classes" in admin.post("/api/v1/tasks/tickets/datasets", json=one).json()["detail"]
    dry = admin.post(
        "/api/v1/tasks/tickets/datasets?dry_run=true", json={"examples": [{"text": "", "label": "x"}, {"text": "a", "label": "y"}]}
    )
    assert (dry.status_code, dry.json()["snapshot"], dry.json()["audit"]["error_count"]) == (201, None, 2)


@pytest.mark.parametrize("field", ["task", "digest", "status", "actor", "requested_by"])
def test_a_field_the_caller_may_not_set_is_refused(admin: TestClient, field: str) -> None:
    admin.post("/api/v1/tasks", json=CONTRACT)
    answer = admin.post("/api/v1/tasks/tickets/retrainings", json={"reason": "r", field: "x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "request_invalid")
    assert answer.json()["problems"][0]["place"] == f"body.{field}"


def test_asking_twice_for_a_retraining_under_one_key_is_asking_once(admin: TestClient) -> None:
    admin.post("/api/v1/tasks", json=CONTRACT)
    admin.post("/api/v1/tasks/tickets/datasets", json={"examples": rows(60)})
    first = admin.post("/api/v1/tasks/tickets/retrainings", json={"reason": "first"}, headers={"idempotency-key": "k1"})
    again = admin.post("/api/v1/tasks/tickets/retrainings", json={"reason": "first", "idempotency_key": "k1"})
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["retraining_id"] == again.json()["retraining_id"]
    assert first.json()["requested_by"] == "admin"
    other = admin.post("/api/v1/tasks/tickets/retrainings", json={"reason": "second"})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    both = admin.post("/api/v1/tasks/tickets/retrainings", json={"reason": "r", "idempotency_key": "a"}, headers={"idempotency-key": "b"})
    assert both.json()["code"] == "request_invalid"
    assert admin.get(f"/api/v1/retrainings/{first.json()['retraining_id']}").json()["state"] == "requested"
    assert len(admin.get("/api/v1/tasks/tickets/retrainings").json()) == 1


def judged(place: Place, *, outcome: str = "pass") -> str:
    """A task whose second version was judged against its first, which answers at generation 1; the second's digest."""
    contract, first, second = a_contract(), a_version(), a_version(digest=a_digest("second"), number=2)
    with place.house.unit_of_work() as work:
        work.contracts.put(contract, place.clock())
        work.versions.put(first)
        work.versions.put(second)
        work.assignments.next_generation()
        work.assignments.put(an_assignment(), expected_generation=None)
        work.verdicts.put(a_verdict(candidate=second.digest, champion=first.digest, outcome=outcome, policy_digest=digest_of(contract)))
        work.commit()
    return str(second.digest)


def test_a_promotion_takes_its_generation_from_the_entity_tag(place: Place, admin: TestClient) -> None:
    digest = judged(place)
    tag = admin.get("/api/v1/tasks/tickets").headers["etag"]
    wanted = {"adapter_digest": digest, "reason": "it is better"}
    stale = admin.post("/api/v1/tasks/tickets/promotions", json=wanted, headers={"if-match": '"7"'})
    assert (stale.status_code, stale.json()["code"]) == (409, "stale_generation")
    odd = admin.post("/api/v1/tasks/tickets/promotions", json=wanted, headers={"if-match": "x"})
    assert (odd.status_code, odd.json()["code"]) == (422, "request_invalid")
    place.clock.step(60)
    made = admin.post("/api/v1/tasks/tickets/promotions", json=wanted, headers={"if-match": tag})
    assert (made.status_code, made.json()["actor"], made.json()["generation"]) == (201, "admin", 2)
    assert made.headers["etag"] == '"2"'
    assert admin.get("/api/v1/assignments").json()[0]["champion"] == digest
    late = admin.post("/api/v1/tasks/tickets/rollbacks", json={"reason": "r", "expected_generation": 1})
    assert late.json()["code"] == "stale_generation"
    place.clock.step(60)
    back = admin.post("/api/v1/tasks/tickets/rollbacks", json={"reason": "worse", "expected_generation": 2})
    assert (back.status_code, back.json()["kind"], back.json()["digest"]) == (201, "rollback", a_digest())
    assert [p["kind"] for p in admin.get("/api/v1/tasks/tickets/promotions").json()] == ["rollback", "promotion"]


@pytest.mark.parametrize("outcome", ["fail", "need more"])
def test_without_a_passing_verdict_the_gate_refuses(place: Place, admin: TestClient, outcome: str) -> None:
    digest = judged(place, outcome=outcome)
    answer = admin.post("/api/v1/tasks/tickets/promotions", json={"adapter_digest": digest, "reason": "please"})
    assert (answer.status_code, answer.json()["code"]) == (409, "gate_refused")
    assert admin.get("/api/v1/assignments").json()[0]["champion"] == a_digest()
    verdict = admin.get(f"/api/v1/verdicts/{a_verdict().verdict_id}").json()
    assert verdict["outcome"] == outcome


def test_labels_are_stored_all_or_none_and_the_same_again_counts_once(place: Place, admin: TestClient) -> None:
    admin.post("/api/v1/tasks", json=CONTRACT)
    place.house.log.append([a_capture(1), a_capture(2)])
    good = {"capture_id": "c-000001", "value": "delivery"}
    assert admin.post("/api/v1/tasks/tickets/labels", json={"labels": [good]}).json() == {"stored_count": 1, "sent_count": 1}
    assert admin.post("/api/v1/tasks/tickets/labels", json={"labels": [good]}).json()["stored_count"] == 0
    unknown = admin.post("/api/v1/tasks/tickets/labels", json={"labels": [{"capture_id": "c-000002", "value": "refunds"}]})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "label_unknown")
    nobody = admin.post("/api/v1/tasks/tickets/labels", json={"labels": [{"capture_id": "c-2", "value": "delivery"}]})
    assert (nobody.status_code, nobody.json()["code"]) == (404, "not_found")
    assert place.house.log.label_count("tickets") == 1


def test_captures_are_paged_in_order_and_the_newest_come_without_a_cursor(place: Place, admin: TestClient) -> None:
    admin.post("/api/v1/tasks", json=CONTRACT)
    place.house.log.append([a_capture(n) for n in range(1, 8)])
    newest = admin.get("/api/v1/tasks/tickets/captures?limit=2").json()
    assert [c["capture_id"] for c in newest] == ["c-000006", "c-000007"]
    assert "embedding" not in newest[0]
    page = admin.get("/api/v1/tasks/tickets/captures?after=2&limit=3").json()
    assert [c["seq"] for c in page] == [3, 4, 5]
    assert admin.get("/api/v1/tasks/tickets/captures?limit=100000").status_code == 422


def test_an_alert_is_acknowledged_then_closed_and_never_opened_again(place: Place, admin: TestClient) -> None:
    alert = an_alert()
    with place.house.unit_of_work() as work:
        work.contracts.put(a_contract(), place.clock())
        work.alerts.put(alert)
        work.commit()
    url = f"/api/v1/alerts/{alert.alert_id}"
    assert admin.post(f"{url}/acknowledge").json()["state"] == "acknowledged"
    assert [a["state"] for a in admin.get("/api/v1/alerts").json()] == ["acknowledged"]
    closed = admin.post(f"{url}/false-alarm").json()
    assert (closed["state"], closed["resolved_at"] is None) == ("false alarm", False)
    assert admin.post(f"{url}/false-alarm").status_code == 200
    assert admin.post(f"{url}/resolve").json()["code"] == "conflict"
    assert admin.post(f"{url}/delete").status_code == 422
    assert admin.get("/api/v1/alerts").json() == []
    assert len(admin.get("/api/v1/alerts?task=tickets").json()) == 1
    kinds = [row["kind"] for row in admin.get("/api/v1/ledger").json()]
    assert kinds == ["key.created", "alert.acknowledged", "alert.false alarm"]


def test_the_ledger_verifies_and_names_its_head(fleet: Place) -> None:
    client = fleet.client()
    found = client.get("/api/v1/ledger/verify").json()
    last = client.get("/api/v1/ledger?limit=1000").json()[-1]
    assert found == {"entry_count": last["seq"], "head": last["hash"]}


def test_a_full_disk_is_507_and_a_lost_lease_is_409(place: Place, admin: TestClient) -> None:
    admin.post("/api/v1/tasks", json=CONTRACT)
    place.house.log.append([a_capture(1)])
    assert isinstance(place.house.log, MemoryCaptureLog)
    place.house.log.full = True
    answer = admin.post("/api/v1/tasks/tickets/labels", json={"labels": [{"capture_id": "c-000001", "value": "delivery"}]})
    assert (answer.status_code, answer.json()["code"]) == (507, StorageRefused.code)
    assert LeaseLost.code == "lease_lost"


def test_an_unknown_path_or_method_is_a_problem_too(admin: TestClient) -> None:
    lost, wrong = admin.get("/api/v1/nothing"), admin.put("/api/v1/tasks")
    assert (lost.status_code, lost.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"]


def test_the_view_of_a_task_says_what_a_person_needs_to_know(fleet: Place) -> None:
    view = fleet.client().get("/api/v1/tasks/tickets").json()
    assert view["standing"]["state"] == "needs you"
    assert view["standing"]["deed_text"] == "Promote v2"
    assert view["quality"]["overall"]["upper"] < view["contract"]["floor"]
    assert view["quality"]["overall"]["lower"] <= view["quality"]["overall"]["value"] <= view["quality"]["overall"]["upper"]
    assert [r["status"] for r in view["monitors"]] == ["alarm", "quiet", "quiet", "not enough data"]
    assert (view["monitors"][0]["detail"], view["monitors"][0]["note"][-10:]) == ({"smallest_rise": 0.043}, "4.3 points")
    assert [a["state"] for a in view["alerts"]] == ["open"]
    assert fleet.client().get("/api/v1/tasks/tickets/reports").json()[0]["row_count"] == 500


def test_a_retraining_on_broken_inputs_is_a_conflict_with_a_code_unless_it_is_wanted_anyway(fleet: Any) -> None:
    broken = Diagnosis(cause="upstream break", action="wait", sentence="38% of recent inputs are empty, against 0% before")
    alert = an_alert(7, task="quiet", diagnosis=broken)
    with fleet.house.unit_of_work() as work:
        work.alerts.put(alert)
        work.commit()
    refused = fleet.client().post("/api/v1/tasks/quiet/retrainings", json={"reason": "by hand"})
    assert (refused.status_code, refused.json()["code"]) == (409, "retraining_held")
    assert "38% of recent inputs are empty" in refused.json()["detail"]
    forced = fleet.client().post("/api/v1/tasks/quiet/retrainings", json={"reason": "by hand", "anyway": True})
    assert (forced.status_code, forced.json()["forced_over"]) == (202, alert.alert_id)


def test_the_budget_of_a_fleet_without_a_champion_has_no_line(admin: TestClient) -> None:
    admin.post("/api/v1/tasks", json=CONTRACT)
    account = admin.get("/api/v1/monitors/budget").json()
    assert (account["monitors"], account["task_count"], account["spent"]) == ([], 0, 0)


def test_the_budget_has_a_line_for_every_monitor_of_every_task_with_a_champion(fleet: Place) -> None:
    account = fleet.client().get("/api/v1/monitors/budget").json()
    lines = [(line["task"], line["reading"]["monitor"]) for line in account["monitors"]]
    assert len(set(lines)) == len(lines) == account["task_count"] * len(NAMES)
    assert {task for task, _ in lines} == {"tickets", "intents", "quiet"}
    assert sum(line["alarm_count"] for line in account["monitors"]) == account["alarm_count"] > 0
    assert sum(line["share"] for line in account["monitors"]) == pytest.approx(1.0)
