"""Who answers: sessions, named versions, shadows, and answers given again; and what every reply says of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from holdfast.domain.routing import choose
from holdfast.serving.batching import Answer, Question
from holdfast.testing.record_builders import BASE_DIGEST, TASK

from .gateway_place import FIRST, PATH, SECOND, Place, refusal


def test_every_answer_says_its_adapter_base_and_generation_in_body_and_headers(place: Place) -> None:
    response = place.client.post(PATH, json={"text": "where is it", "request_id": "r-1"})
    body, headers = response.json(), response.headers
    assert body["base_digest"] == headers["x-holdfast-base"] == BASE_DIGEST
    assert body["adapter_digest"] == headers["x-holdfast-adapter"]
    assert body["generation"] == int(headers["x-holdfast-generation"]) == 4
    assert body["request_id"] == headers["x-request-id"] == "r-1"


def test_texts_of_one_request_have_ids_of_their_own_so_that_each_is_captured(place: Place) -> None:
    response = place.client.post(PATH, json={"items": [{"text": "a"}, {"text": "b"}, {"text": "c", "request_id": "own"}]},
                                 headers={"x-request-id": "call-1"})  # fmt: skip
    assert [a["request_id"] for a in response.json()["answers"]] == ["call-1.0", "call-1.1", "own"]
    assert response.json()["request_id"] == "call-1"
    assert set(place.captures()) == {"call-1.0", "call-1.1", "own"}


def test_all_requests_of_a_session_go_the_same_way_whatever_their_ids(place: Place) -> None:
    for session in ("anna", "bert", "carl", "dora"):
        found = {place.client.post(PATH, json={"text": "x"}, headers={"x-holdfast-session": session}).json()["route"] for _ in range(12)}
        assert found == {choose(place.route, session).route}
    assert refusal(place.client.post(PATH, json={"text": "x"}, headers={"x-holdfast-session": "two words"})) == (422, "request_invalid")


@pytest.mark.parametrize(
    ("name", "digest", "route"),
    [("tickets@champion", FIRST, "champion"), ("tickets@challenger", SECOND, "pinned"), ("tickets@1", FIRST, "pinned"),
     ("minilm:tickets@2", SECOND, "pinned")],
)  # fmt: skip
def test_a_named_version_answers_and_is_captured_under_a_route_of_its_own(place: Place, name: str, digest: str, route: str) -> None:
    body = place.client.post(f"/v1/tasks/{name}/predict", json={"text": "x", "request_id": "r"}).json()
    assert (body["label"], body["adapter_digest"], body["route"]) == (digest, digest, route)
    assert place.captures()["r"].route == route


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tickets@17", (404, "not_found")), ("tickets@3", (409, "version_not_held")), ("minilm", (404, "not_found")),
     ("large:tickets", (404, "not_found")), ("tickets@best", (404, "not_found"))],
)  # fmt: skip
def test_a_version_that_is_not_served_is_refused_and_never_answered_by_the_champion(
    place: Place, name: str, expected: tuple[int, str]
) -> None:
    assert refusal(place.client.post(f"/v1/tasks/{name}/predict", json={"text": "x"})) == expected
    assert place.asked == []
    assert place.captures() == {}


def test_a_shadow_gets_a_copy_after_the_reply_and_its_answer_is_captured_and_never_returned(tmp_path: Path) -> None:
    place = Place(tmp_path, share_canary=0.0, shadow=True)
    with place.client:
        body = place.client.post(PATH, json={"text": "where", "request_id": "r-1", "slices": {"channel": "mail"}}).json()
    captures = place.captures()
    assert (body["label"], body["route"]) == (FIRST, "champion")
    assert {i: (c.route, c.adapter_digest, c.prediction.label) for i, c in captures.items()} == {
        "r-1": ("champion", FIRST, FIRST),
        "r-1~shadow": ("shadow", SECOND, SECOND),
    }
    assert captures["r-1~shadow"].slices == {"channel": "mail"}
    assert place.figure(f'holdfast_shadow_copies_total{{outcome="answered",task="{TASK}"}}') == 1


def test_a_copy_that_cannot_be_answered_costs_the_caller_nothing_and_is_counted(tmp_path: Path) -> None:
    async def ask(questions: Sequence[Question]) -> list[Answer | str]:
        return ["not loaded" if digest == SECOND else (digest, 0.5, b"\x00\x3c" * 8, (3, 3), ()) for digest, _ in questions]

    place = Place(tmp_path, share_canary=0.0, shadow=True, ask=ask)
    with place.client:
        assert place.client.post(PATH, json={"text": "where", "request_id": "r-1"}).status_code == 200
    assert set(place.captures()) == {"r-1"}
    assert place.figure(f'holdfast_shadow_copies_total{{outcome="failed",task="{TASK}"}}') == 1


def test_the_cache_answers_the_same_text_of_the_same_adapter_again_and_says_so(tmp_path: Path) -> None:
    place = Place(tmp_path, share_canary=0.0, cache_bytes=10_000)
    with place.client:
        bodies = [place.client.post(PATH, json={"text": "where", "request_id": f"r-{n}"}).json() for n in range(3)]
        other = place.client.post("/v1/tasks/tickets@2/predict", json={"text": "where"}).json()
    assert [(b["label"], b["cached"]) for b in bodies] == [(FIRST, False), (FIRST, True), (FIRST, True)]
    assert (other["label"], other["cached"]) == (SECOND, False)
    assert place.asked == [(FIRST, "where"), (SECOND, "where")]
    assert {"r-0", "r-1", "r-2"} <= set(place.captures())
    assert place.figure(f'holdfast_cached_predictions_total{{task="{TASK}"}}') == 2
    assert place.figure('holdfast_result_cache_total{outcome="hit"}') == 2


def test_without_the_setting_nothing_is_cached(place: Place) -> None:
    answers = [place.client.post(PATH, json={"text": "where", "request_id": "r"}).json()["cached"] for _ in range(3)]
    assert answers == [False] * 3
    assert len(place.asked) == 3


def test_a_text_of_too_many_tokens_is_cut_and_said_or_refused_as_the_contract_says(place: Place, tmp_path: Path) -> None:
    long = " ".join(["word"] * 9)
    assert place.client.post(PATH, json={"text": "short"}).json()["truncated"] is False
    assert place.client.post(PATH, json={"text": long}).json()["truncated"] is True
    strict = Place(tmp_path / "strict", contract={"overlong": "refuse"})
    with strict.client:
        assert refusal(strict.client.post(PATH, json={"text": long})) == (422, "too_many_tokens")
        assert strict.client.post(PATH, json={"text": "short", "request_id": "r"}).status_code == 200
    assert set(strict.captures()) == {"r"}


def test_a_caller_may_give_less_time_than_the_setting_and_never_more(tmp_path: Path) -> None:
    async def never(questions: Sequence[Question]) -> list[Answer | str]:
        await asyncio.Event().wait()
        return []

    place = Place(tmp_path, ask=never, deadline_s=0.2)
    with place.client:
        for value in ("30", "600000"):
            assert refusal(place.client.post(PATH, json={"text": "x"}, headers={"x-request-timeout-ms": value})) == (504, "deadline_passed")
    for value in ("soon", "0", "-5", "1.5", "", "9" * 30):
        answer = place.client.post(PATH, json={"text": "x"}, headers={"x-request-timeout-ms": value})
        assert refusal(answer) == (422, "request_invalid")


def test_a_trace_is_taken_on_with_a_span_of_our_own_and_a_broken_one_begins_anew(place: Place) -> None:
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    given = {"traceparent": f"00-{trace}-{span}-01", "tracestate": "vendor=1"}
    said = place.client.post(PATH, json={"text": "x"}, headers=given).headers
    found = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", said["traceparent"])
    assert found is not None
    assert (found[1], said["tracestate"]) == (trace, "vendor=1")
    assert found[2] != span
    for broken in ("", "00-" + "0" * 32 + f"-{span}-01", f"ff-{trace}-{span}-01", f"00-{trace}-{span}-01-more", "x" * 4000):
        anew = place.client.post(PATH, json={"text": " "}, headers={"traceparent": broken, "tracestate": "vendor=1"})
        assert anew.status_code == 422
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", anew.headers["traceparent"])
        assert trace not in anew.headers["traceparent"]
        assert "tracestate" not in anew.headers
