"""The gateway over HTTP, in front of a replica in the same process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast.domain.captures import MAX_TEXT_CHARS
from holdfast.domain.routing import choose
from holdfast.errors import PartUnavailable
from holdfast.serving.answers import answer_fields
from holdfast.serving.batching import Answer, Question
from holdfast.serving.gateway import make_app
from holdfast.testing.record_builders import TASK

from .gateway_place import KEY, PATH, Place, refusal

OSLO = {"field": "city", "start": 3, "end": 7, "text": "Oslo"}


def test_an_answer_says_who_gave_it_and_its_capture_is_in_the_spool_before_the_reply(place: Place) -> None:
    response = place.client.post(PATH, json={"text": "where is it", "request_id": "r-1", "slices": {"channel": "mail"}})
    body = response.json()
    chosen = choose(place.route, "r-1")
    assert (response.status_code, body["label"], body["adapter_digest"]) == (200, chosen.digest, chosen.digest)
    assert (body["request_id"], body["generation"], body["route"], body["confidence"]) == ("r-1", 4, chosen.route, 0.875)
    assert response.headers["x-holdfast-request-id"] == "r-1"
    assert response.headers["x-holdfast-adapter"] == chosen.digest
    assert response.headers["x-holdfast-capture"] == "stored"
    assert place.buffer.drain() == 1
    capture = place.log.after(TASK, 0)[0]
    assert (capture.capture_id, capture.text, capture.slices) == ("r-1", "where is it", {"channel": "mail"})
    assert (capture.adapter_digest, capture.generation, list(capture.embedding)) == (chosen.digest, 4, [1.0] * 8)


def test_several_texts_are_answered_in_order_each_by_its_own_version(place: Place) -> None:
    items = [{"text": f"text {n}", "request_id": f"r-{n}"} for n in range(40)]
    answers = place.client.post(PATH, json={"items": items}).json()["answers"]
    assert [a["request_id"] for a in answers] == [i["request_id"] for i in items]
    assert [a["label"] for a in answers] == [choose(place.route, str(i["request_id"])).digest for i in items]
    assert {a["route"] for a in answers} == {"champion", "canary"}


def test_a_request_id_sent_again_goes_the_same_way_and_is_stored_once(place: Place) -> None:
    answers = [place.client.post(PATH, json={"text": "x", "request_id": "again"}).json()["label"] for _ in range(5)]
    assert len(set(answers)) == 1
    assert place.buffer.drain() == 1


def test_the_request_id_of_the_header_is_taken_and_without_one_a_new_one_is_given(place: Place) -> None:
    given = place.client.post(PATH, json={"text": "x"}, headers={"x-request-id": "from-header"})
    made = [place.client.post(PATH, json={"text": "x"}).json()["request_id"] for _ in range(2)]
    assert given.json()["request_id"] == "from-header"
    assert made[0] != made[1]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"text": "   "}', "request_invalid"),
        (b'{"text": ""}', "request_invalid"),
        (b'{"text": 7}', "request_invalid"),
        (b'{"texts": "x"}', "request_invalid"),
        (b'{"text": "x", "extra": 1}', "request_invalid"),
        (b'{"items": []}', "request_invalid"),
        (b'{"items": [{"text": "fine"}, {"text": "\\u0000\\u0001\\u0002"}]}', "request_invalid"),
        (b'{"text": "x", "request_id": "two words"}', "request_invalid"),
        (b'{"text": "x", "request_id": "text\\n"}', "request_invalid"),
        (b'{"text": "\\ud800"}', "request_invalid"),
        (b'{"text": "\xff\xfe"}', "request_invalid"),
        (b"", "request_invalid"),
        (b"not json", "request_invalid"),
        (b"[1, 2]", "request_invalid"),
        (b'{"text": "x", "slices": {"a": 1}}', "request_invalid"),
    ],
)
def test_a_body_that_cannot_be_used_is_refused_and_leaves_no_capture(place: Place, body: bytes, code: str) -> None:
    assert refusal(place.client.post(PATH, content=body)) == (422, code)
    assert place.buffer.drain() == 0


def test_a_text_that_is_too_long_and_a_body_that_is_too_large_are_refused(place: Place) -> None:
    assert refusal(place.client.post(PATH, json={"text": "x" * (MAX_TEXT_CHARS + 1)})) == (422, "request_invalid")
    assert refusal(place.client.post(PATH, content=b"x" * ((4 << 20) + 1))) == (413, "body_too_large")


def test_unknown_tasks_wrong_keys_and_unknown_paths_are_refused(place: Place) -> None:
    assert refusal(place.client.post("/v1/tasks/nowhere/predict", json={"text": "x"})) == (404, "not_found")
    for value in ("", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY):
        assert refusal(place.client.post(PATH, json={"text": "x"}, headers={"authorization": value})) == (401, "not_permitted")
    assert refusal(place.client.get(PATH)) == (405, "method_not_allowed")
    assert refusal(place.client.get("/nothing")) == (404, "not_found")
    assert place.buffer.drain() == 0


def test_a_disk_that_takes_no_capture_still_gets_its_answer_and_the_header_says_so(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file in place of the folder")
    place = Place(tmp_path)
    with place.client:
        response = place.client.post(PATH, json={"text": "x"})
    assert (response.status_code, response.headers["x-holdfast-capture"]) == (200, "refused")
    assert place.buffer.counts.refused == 1


async def _down(questions: Sequence[Question]) -> list[Answer | str]:
    raise PartUnavailable(part="replica", reason="it is gone")


async def _cannot(questions: Sequence[Question]) -> list[Answer | str]:
    return ["the version is not loaded" for _ in questions]


async def _broken(questions: Sequence[Question]) -> list[Answer | str]:
    return [("label", 1.0, b"odd", (3, 3), ())]


@pytest.mark.parametrize(
    ("ask", "fields", "expected"),
    [
        (_down, {"deadline_s": 0.05}, (504, "deadline_passed")),
        (_cannot, {}, (503, "part_unavailable")),
        (_down, {"queue_rows": 0}, (429, "overloaded")),
        (_broken, {}, (500, "internal")),
    ],
)
def test_an_answer_that_cannot_be_had_is_a_problem_with_a_code(
    tmp_path: Path, ask: Callable[..., Any], fields: dict[str, Any], expected: tuple[int, str]
) -> None:
    place = Place(tmp_path, ask=ask, **fields)
    with place.client:
        response = place.client.post(PATH, json={"text": "x"})
    assert refusal(response) == expected
    assert (response.status_code == 429) == ("retry-after" in response.headers and expected[0] == 429)
    assert place.buffer.drain() == 0


def test_it_is_ready_when_a_replica_answers_and_alive_before(place: Place) -> None:
    place.reason = "no replica answers"
    assert place.client.get("/healthz").status_code == 200
    assert refusal(place.client.get("/readyz")) == (503, "not_ready")
    place.reason = None
    assert place.client.get("/readyz").json() == {"status": "ready", "generation": 4}


def test_outcomes_are_counted_and_callers_cannot_make_new_series(place: Place) -> None:
    place.client.post(PATH, json={"text": "x"})
    place.client.post(PATH, json={"text": " "})
    for number in range(5):
        place.client.post(f"/v1/tasks/guess-{number}/predict", json={"text": "x"})
    text = place.client.get("/metrics").text
    assert f'holdfast_requests_total{{outcome="answered",task="{TASK}"}} 1.0' in text
    assert f'holdfast_requests_total{{outcome="request_invalid",task="{TASK}"}} 1.0' in text
    assert 'holdfast_requests_total{outcome="not_found",task="unknown"} 5.0' in text
    assert "guess" not in text
    assert 'holdfast_captures_total{outcome="accepted"} 1.0' in text
    assert 'holdfast_batches_total{outcome="answered"} 1.0' in text
    assert "holdfast_routing_generation 4.0" in text


def test_metrics_are_for_this_machine_alone(place: Place) -> None:
    elsewhere = TestClient(make_app(place.state), client=("192.0.2.7", 1))
    assert refusal(elsewhere.get("/metrics")) == (401, "not_permitted")


@pytest.mark.parametrize(
    ("said", "parts", "body"),
    [
        ("refund", (), {"label": "refund"}),
        ('["a","b"]', (0.5, 0.75), {"labels": ["a", "b"], "confidences": {"a": 0.5, "b": 0.75}}),
        ("[]", (), {"labels": [], "confidences": {}}),
        (
            '{"spans":[{"field":"city","start":3,"end":7,"text":"Oslo"}]}', (0.5,),
            {"spans": [OSLO | {"confidence": 0.5}], "fields": {"city": ["Oslo"]}},
        ),
        ('{"spans":[]}', (), {"spans": [], "fields": {}}),
    ],
)  # fmt: skip
def test_an_answer_is_shown_in_the_form_of_its_kind(said: str, parts: tuple[float, ...], body: dict[str, object]) -> None:
    assert answer_fields(said, 0.25, parts) == {**body, "confidence": 0.25}
