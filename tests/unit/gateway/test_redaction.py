"""Nothing that the contract calls sensitive reaches the disk: not the spool, not the spool of labels, not the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.domain.answers import spans_in
from holdfast.domain.tasks import CapturePolicy
from holdfast.serving.batching import Answer, Question
from holdfast.testing.record_builders import TASK

from .gateway_place import PATH, Place

TEXT = "write to anna.b@example.org, card 4111 1111 1111 1111"
MASKED = "write to xxxx.x@xxxxxxx.xxx, card 0000 0000 0000 0000"
POLICY = {"capture": CapturePolicy(redact=("email", "credit_card"))}
SPANS = '{"spans":[{"field":"to","start":9,"end":27,"text":"anna.b@example.org"}]}'


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def extract(questions: Sequence[Question]) -> list[Answer | str]:
    return [(SPANS, 0.9, b"\x00\x3c" * 8, (5, 5), (0.9,)) for _ in questions]


def test_a_text_is_masked_before_it_is_written_and_the_model_reads_it_whole(tmp_path: Path) -> None:
    place = Place(tmp_path, contract=POLICY)
    assert place.client.post(PATH, json={"text": TEXT, "request_id": "r-1"}).headers["x-holdfast-capture"] == "stored"
    assert place.asked[0][1] == TEXT
    assert MASKED.encode() in written(tmp_path)
    assert b"example" not in written(tmp_path)
    assert b"4111" not in written(tmp_path)
    assert place.captures()["r-1"].text == MASKED


def test_a_copy_for_a_shadow_is_asked_with_the_text_and_written_masked(tmp_path: Path) -> None:
    place = Place(tmp_path, shadow=True, share_canary=0.0, contract=POLICY)
    place.client.post(PATH, json={"text": TEXT, "request_id": "r-1"})
    assert [text for _, text in place.asked] == [TEXT, TEXT]
    assert place.captures()["r-1~shadow"].text == MASKED


def test_a_task_that_masks_nothing_keeps_its_texts(place: Place) -> None:
    place.client.post(PATH, json={"text": TEXT, "request_id": "r-1"})
    assert place.captures()["r-1"].text == TEXT


def test_answers_and_labels_that_cut_spans_from_a_masked_text_fit_it(tmp_path: Path) -> None:
    place = Place(tmp_path, ask=extract, contract=POLICY | {"kind": "extraction", "labels": ("to",)})
    body = place.client.post(PATH, json={"text": TEXT, "request_id": "r-1"}).json()
    assert body["spans"][0]["text"] == "anna.b@example.org"  # the caller gets what he sent
    for number, task in enumerate([None, TASK]):
        said = {"request_id": "r-1", "label": SPANS, "source": f"s{number}"} | ({"task": task} if task else {})
        assert place.client.post("/v1/feedback", json=said).status_code == 202
    assert place.client.post("/v1/feedback", json={"request_id": "r-1", "label": '{"to": "anna.b@example.org"}'}).status_code == 202
    assert b"example" not in written(tmp_path)
    capture = place.captures()["r-1"]
    place.labels.drain()
    assert b"example" not in written(tmp_path)
    assert place.labels.counts.invalid == 0
    labels = [row.label for row in place.log.labelled_after(TASK, 0)]
    assert len(labels) == 3
    for value in [capture.prediction.label, *(label.value for label in labels)]:
        assert [(s.start, s.end, s.text) for s in spans_in(value)] == [(9, 27, "xxxx.x@xxxxxxx.xxx")]


def test_a_label_whose_name_looks_like_a_phone_number_stays_whether_its_task_is_said_or_not(tmp_path: Path) -> None:
    place = Place(tmp_path, contract={"capture": CapturePolicy(redact=("phone",)), "labels": ("020 7946 0958", "other")})
    place.client.post(PATH, json={"text": "x", "request_id": "r-1"})
    for source, task in (("a", {}), ("b", {"task": TASK})):
        said = {"request_id": "r-1", "label": "020 7946 0958", "source": source} | task
        assert place.client.post("/v1/feedback", json=said).status_code == 202
    place.captures()
    place.labels.drain()
    assert [row.label.value for row in place.log.labelled_after(TASK, 0)] == ["020 7946 0958"] * 2


def test_a_capture_whose_contract_is_not_known_here_is_not_written(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.state.feed.known.catalogue.contracts.pop(TASK)  # type: ignore[attr-defined]
    response = place.client.post(PATH, json={"text": TEXT})
    assert (response.status_code, response.headers["x-holdfast-capture"]) == (200, "refused")
    assert b"example" not in written(tmp_path)
