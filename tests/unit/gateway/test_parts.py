"""The confidence of each label and each span of an answer: on the way to the caller, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.testing.record_builders import TASK

from .gateway_place import PATH, Place

SET = '["auth","net"]'
SPANS = '{"spans":[{"field":"city","start":3,"end":7,"text":"Oslo"}]}'


def answered(folder: Path, said: str, parts: tuple[float, ...], *, times: int = 1, **given: Any) -> tuple[list[dict[str, Any]], Any]:
    """The bodies of the same request sent so often, when the replica says ``said``; and the newest capture."""

    async def ask(questions: Sequence[tuple[str, str]]) -> list[Any]:
        return [(said, 0.5, b"\x00\x3c" * 8, (2, 2), parts) for _ in questions]

    place = Place(folder, ask=ask, share_canary=0.0, **given)
    with place.client:
        bodies = [place.client.post(PATH, json={"text": "in Oslo", "request_id": f"r-{n}"}).json() for n in range(times)]
        captures = place.captures()
    place.buffer.close()
    place.labels.close()
    return bodies, captures[f"r-{times - 1}"]


def test_each_label_of_a_set_comes_with_its_confidence_and_the_capture_holds_the_set_alone(tmp_path: Path) -> None:
    [body], capture = answered(tmp_path, SET, (0.98, 0.71))
    assert body["labels"] == ["auth", "net"]
    assert body["confidences"] == {"auth": 0.98, "net": 0.71}
    assert body["confidence"] == 0.5
    assert (capture.prediction.label, capture.prediction.confidence) == (SET, 0.5)


def test_each_span_comes_with_its_confidence_and_the_capture_holds_the_spans_alone(tmp_path: Path) -> None:
    [body], capture = answered(tmp_path, SPANS, (0.62,))
    assert body["spans"] == [{"field": "city", "start": 3, "end": 7, "text": "Oslo", "confidence": 0.62}]
    assert body["fields"] == {"city": ["Oslo"]}
    assert capture.prediction.label == SPANS


def test_an_answer_from_the_cache_is_the_same_answer(tmp_path: Path) -> None:
    bodies, capture = answered(tmp_path, SET, (0.98, 0.71), times=2, cache_bytes=10_000)
    assert [body["cached"] for body in bodies] == [False, True]
    assert bodies[0]["confidences"] == bodies[1]["confidences"] == {"auth": 0.98, "net": 0.71}
    assert capture.prediction.label == SET


def test_the_open_protocol_gives_the_canonical_text(tmp_path: Path) -> None:
    async def ask(questions: Sequence[tuple[str, str]]) -> list[Any]:
        return [(SET, 0.5, b"\x00\x3c" * 8, (2, 2), (0.98, 0.71)) for _ in questions]

    place = Place(tmp_path, ask=ask)
    wanted = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["in Oslo"]}]}
    with place.client:
        outputs = {o["name"]: o["data"] for o in place.client.post(f"/v2/models/{TASK}/infer", json=wanted).json()["outputs"]}
    assert outputs["label"] == [SET]
