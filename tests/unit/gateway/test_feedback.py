"""Labels given at the gateway: taken at once and durably, whatever the order, and none is lost without a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from holdfast.client import Client
from holdfast.domain.captures import Feedback
from holdfast.domain.ids import CaptureId
from holdfast.errors import LabelUnknown
from holdfast.flows.record import Delivered
from holdfast.serving.label_buffer import LabelBuffer
from holdfast.testing.clock import NOON, SteppedClock
from holdfast.testing.record_builders import TASK

from .gateway_place import KEY, PATH, Place, refusal


def give(place: Place, **body: Any) -> Any:
    return place.client.post("/v1/feedback", json=body)


def labels(place: Place) -> list[tuple[str, str, str]]:
    return [(x.label.capture_id, x.label.value, x.label.source) for x in place.log.labelled_after(TASK, 0)]


def test_a_label_given_before_its_capture_left_the_spool_is_taken_and_joins_it_later(place: Place) -> None:
    place.client.post(PATH, json={"text": "where is it", "request_id": "r-1"})
    response = give(place, request_id="r-1", label="delivery")
    assert (response.status_code, response.json()["accepted_count"]) == (202, 1)
    assert place.labels.drain() == 0  # its capture is still in the spool
    assert labels(place) == []
    place.buffer.drain()
    assert place.labels.drain() == 1
    assert labels(place) == [("r-1", "delivery", "me")]


def test_labels_come_out_of_order_in_part_and_twice_without_harm(place: Place) -> None:
    items = [{"text": f"text {n}", "request_id": f"r-{n}"} for n in range(6)]
    place.client.post(PATH, json={"items": items})
    place.buffer.drain()
    given = [{"request_id": f"r-{n}", "label": "returns", "task": TASK, "source": "agents"} for n in (4, 1, 1, 3)]
    assert give(place, items=given).json()["accepted_count"] == 4
    assert give(place, items=given).status_code == 202
    place.labels.drain()
    assert sorted(labels(place)) == [(f"r-{n}", "returns", "agents") for n in (1, 3, 4)]
    assert (place.labels.counts.stored, place.labels.counts.known) == (3, 5)


def test_a_label_whose_capture_never_comes_is_counted_and_kept_where_a_person_finds_it(place: Place, tmp_path: Path) -> None:
    assert give(place, request_id="nobody", label="billing").status_code == 202
    place.labels.drain()
    assert place.labels.counts.unmatched == 0
    place.clock.step(61)
    place.labels.drain()
    assert place.labels.counts.unmatched == 1
    assert '"id":"nobody"' in (tmp_path / "labels" / "unmatched.txt").read_text()
    assert place.figure('holdfast_feedback_total{outcome="unmatched"}') == 1
    assert place.labels.waiting_bytes == 0


def test_a_label_that_cannot_be_right_is_refused_at_once_where_the_task_is_named(place: Place) -> None:
    assert refusal(give(place, request_id="r", label="nonsense", task=TASK)) == (422, "label_unknown")
    assert refusal(give(place, request_id="r", label="billing", task="nowhere")) == (404, "not_found")
    assert place.labels.counts.accepted == 0


def test_a_label_that_turns_out_wrong_later_is_set_aside_and_costs_its_neighbours_nothing(place: Place, tmp_path: Path) -> None:
    place.client.post(PATH, json={"items": [{"text": "a", "request_id": "r-1"}, {"text": "b", "request_id": "r-2"}]})
    place.buffer.drain()
    give(place, items=[{"request_id": "r-1", "label": "nonsense"}, {"request_id": "r-2", "label": "billing"}])
    place.labels.drain()
    assert labels(place) == [("r-2", "billing", "me")]
    assert place.labels.counts.invalid == 1
    assert "nonsense" in (tmp_path / "labels" / "refused.txt").read_text()


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"request_id": "r"}', b'{"request_id": "", "label": "x"}', b'{"request_id": "r", "label": ""}', b'{"items": []}',
     b'{"request_id": "r", "label": "a\\u0000b"}', b'{"request_id": "r", "label": 3}', b'{"request_id": "r", "label": "x", "at": 1}',
     b'{"request_id": "r", "label": "\xff"}'],
)  # fmt: skip
def test_feedback_that_cannot_be_used_is_refused(place: Place, body: bytes) -> None:
    assert refusal(place.client.post("/v1/feedback", content=body)) == (422, "request_invalid")


def test_a_caller_without_a_key_gives_no_feedback(place: Place) -> None:
    answer = place.client.post("/v1/feedback", json={"request_id": "r", "label": "billing"}, headers={"authorization": ""})
    assert refusal(answer) == (401, "not_permitted")


def test_a_dead_database_delays_labels_and_a_new_process_finds_those_of_the_old(place: Place, tmp_path: Path) -> None:
    place.client.post(PATH, json={"text": "where is it", "request_id": "r-1"})
    place.buffer.drain()
    give(place, request_id="r-1", label="delivery")
    place.log.full = place.database.down = True
    place.labels.close()  # nothing can be brought; the line stays
    place.log.full = place.database.down = False
    heir = LabelBuffer(tmp_path / "labels", place.labels._deliver, place.clock)
    assert heir.drain() == 1
    heir.close()
    assert labels(place) == [("r-1", "delivery", "me")]


def test_above_the_limit_of_what_may_wait_labels_are_refused_and_the_caller_hears_of_it(tmp_path: Path) -> None:
    def away(given: object) -> Delivered:
        raise OSError("no database")

    buffer = LabelBuffer(tmp_path / "labels", away, SteppedClock(NOON), limit_bytes=1000)
    one = Feedback(capture_id=CaptureId("r"), task=None, value="x" * 300, source="me", given_at=NOON)
    outcomes = [buffer.accept(one) for _ in range(5)]
    assert outcomes[:2] == [None, None]
    assert outcomes[2:] == [f"{buffer.waiting_bytes} bytes wait already"] * 3
    assert (buffer.counts.accepted, buffer.counts.refused) == (2, 3)


def test_captures_above_the_limit_are_counted_and_what_waits_goes_when_the_log_is_back(place: Place, tmp_path: Path) -> None:
    place.buffer._limit_bytes = 1500
    place.log.full = True
    said = [place.client.post(PATH, json={"text": "x" * 200, "request_id": f"r-{n}"}).headers["x-holdfast-capture"] for n in range(4)]
    assert said == ["stored", "stored", "refused", "refused"]
    assert place.buffer.counts.refused == 2
    place.log.full = False
    place.buffer.drain()
    assert place.buffer.waiting_bytes == 0
    assert place.client.post(PATH, json={"text": "x", "request_id": "later"}).headers["x-holdfast-capture"] == "stored"


def test_the_client_gives_feedback_and_raises_what_the_gateway_says(place: Place) -> None:
    def over(request: httpx2.Request) -> httpx2.Response:
        answer = place.client.post(request.url.path, content=request.content, headers=dict(request.headers))
        return httpx2.Response(answer.status_code, headers={"content-type": answer.headers["content-type"]}, content=answer.content)

    with Client("http://api", "http://gateway", KEY, transport=httpx2.MockTransport(over)) as client:
        client.predict(TASK, "where is it", request_id="r-1")
        assert client.give_feedback([{"request_id": "r-1", "label": "delivery", "task": TASK}]) == 1
        with pytest.raises(LabelUnknown):
            client.give_feedback([{"request_id": "r-1", "label": "nonsense", "task": TASK}])
    place.buffer.drain()
    place.labels.drain()
    assert labels(place) == [("r-1", "delivery", "me")]


@pytest.mark.parametrize(
    ("kind", "label", "refused"),
    [
        ("multi-label", ["billing", "returns"], None),
        ("multi-label", "[]", None),
        ("multi-label", ["billing", "planet"], "label_unknown"),
        ("multi-label", 5, "request_invalid"),
        ("extraction", {"billing": "my card"}, None),
        ("extraction", [{"field": "billing", "start": 0, "end": 4}], None),
        ("extraction", {"planet": "Bern"}, "label_unknown"),
        ("extraction", [{"field": "planet", "start": 0, "end": 4}], "label_unknown"),
        ("extraction", "nonsense", "data_invalid"),
        ("extraction", [{"field": "billing", "start": "0", "end": 4}], "data_invalid"),
    ],
)
def test_a_label_that_fits_no_text_of_the_task_is_refused_at_once(tmp_path: Path, kind: str, label: object, refused: str | None) -> None:
    place = Place(tmp_path, contract={"kind": kind, "labels": ("billing", "returns")})
    with place.client:
        answer = place.client.post("/v1/feedback", json={"request_id": "r-1", "label": label, "task": TASK})
    place.buffer.close()
    place.labels.close()
    assert (answer.status_code, answer.json().get("code")) == ((202, None) if refused is None else (422, refused))
