"""The Open Inference Protocol v2 and the OpenAI API, as their clients speak them; by hand, down to the bytes."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from .gateway_place import BASES, FIRST, SECOND, Place

INFER = "/v2/models/tickets@champion/infer"


def tensor(*texts: str, **fields: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}], **fields}


def output(body: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in body["outputs"] if one["name"] == name)


def v2_refusal(response: Any) -> int:
    """Status of a refusal in the protocol's form."""
    body = response.json()
    assert isinstance(body["error"], str) and body["error"]
    assert body["id"] == response.headers["x-request-id"]
    return int(response.status_code)


def openai_refusal(response: Any) -> tuple[int, str, str]:
    """Status, type and code of a refusal in the API's form."""
    error = response.json()["error"]
    assert error["message"]
    return response.status_code, error["type"], error["code"]


def test_texts_in_json_tensors_are_answered_in_order_with_all_that_names_the_answer(place: Place) -> None:
    response = place.client.post(INFER, json=tensor("where is it", "Grüße 测试 \U0001f600", id="call-7"))
    body = response.json()
    assert (response.status_code, body["model_name"], body["model_version"], body["id"]) == (200, "tickets", "1", "call-7")
    assert output(body, "label") == {"name": "label", "datatype": "BYTES", "shape": [2], "data": [FIRST, FIRST]}
    assert output(body, "confidence")["data"] == [0.875, 0.875]
    assert output(body, "request_id")["data"] == ["call-7.0", "call-7.1"]
    assert body["parameters"]["adapter_digest"] == FIRST == response.headers["x-holdfast-adapter"]
    assert (body["parameters"]["generation"], body["parameters"]["base_digest"]) == (4, BASES["minilm"])
    assert {one["name"] for one in body["outputs"]} == {"label", "confidence", "adapter_digest", "request_id", "truncated"}
    assert place.captures()["call-7.1"].text == "Grüße 测试 \U0001f600"


def test_the_embedding_comes_where_it_is_asked_for_and_nothing_else_with_it(place: Place) -> None:
    body = place.client.post(INFER, json=tensor("a", "b", outputs=[{"name": "embedding"}])).json()
    assert [(o["name"], o["shape"], o["data"]) for o in body["outputs"]] == [("embedding", [2, 8], [1.0] * 16)]


def test_nested_data_of_shape_n_by_1_is_read(place: Place) -> None:
    asked = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": [["a"], ["b"]]}]}
    assert output(place.client.post(INFER, json=asked).json(), "label")["data"] == [FIRST, FIRST]


def binary(texts: list[bytes], **fields: Any) -> tuple[bytes, dict[str, str]]:
    """A request whose tensor follows its JSON, and its headers."""
    blob = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    one = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [one], **fields}).encode()
    return head + blob, {"Inference-Header-Content-Length": str(len(head))}


def test_tensors_come_and_go_in_the_binary_extension(place: Place) -> None:
    raw, headers = binary(["Grüße".encode(), b"where"], parameters={"binary_data_output": True})
    response = place.client.post(INFER, content=raw, headers=headers)
    length = int(response.headers["inference-header-content-length"])
    body, tail = json.loads(response.content[:length]), response.content[length:]
    assert sum(o["parameters"]["binary_data_size"] for o in body["outputs"]) == len(tail)
    size = body["outputs"][0]["parameters"]["binary_data_size"]
    labels = tail[:size]
    assert labels == (struct.pack("<I", len(FIRST)) + FIRST.encode()) * 2
    confidence = tail[size : size + body["outputs"][1]["parameters"]["binary_data_size"]]
    assert np.frombuffer(confidence, "<f4").tolist() == [0.875, 0.875]


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{}", b"[]", b"not json", b'{"inputs": []}', b"\xff",
        json.dumps({"inputs": [{"name": "other", "datatype": "BYTES", "shape": [1], "data": ["x"]}]}).encode(),
        json.dumps({"inputs": [{"name": "text", "datatype": "FP32", "shape": [1], "data": [1.0]}]}).encode(),
        json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [3], "data": ["x"]}]}).encode(),
        json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": [1]}]}).encode(),
        json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1]}]}).encode(),
        json.dumps({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [0], "data": []}]}).encode(),
        json.dumps(tensor(" ")).encode(),
        json.dumps(tensor("x", outputs=[{"name": "weather"}])).encode(),
        json.dumps(tensor("x", id="two words")).encode(),
        json.dumps(tensor(*["x"] * 257)).encode(),
        b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ' + b"[" * 5000 + b"]" * 5000 + b"}]}",
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_read_is_refused_in_the_protocols_form(place: Place, raw: bytes) -> None:
    assert v2_refusal(place.client.post(INFER, content=raw)) == 400
    assert place.captures() == {}


@pytest.mark.parametrize("blob", [b"\x05", b"\x09\x00\x00\x00abc", b"\x02\x00\x00\x00\xff\xfe", b""])
def test_a_binary_tensor_that_ends_early_or_is_no_text_is_refused(place: Place, blob: bytes) -> None:
    one = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [one]}).encode()
    for length in (str(len(head)), "999999", "-1", "x"):
        answer = place.client.post(INFER, content=head + blob, headers={"Inference-Header-Content-Length": length})
        assert v2_refusal(answer) == 400


def test_models_versions_and_health_are_told(place: Place) -> None:
    get = place.client.get
    assert get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert get("/v2/models").json() == {"models": ["tickets"]}
    assert get("/v2/models/tickets").json()["versions"] == ["1", "2", "3"]
    assert get("/v2/models/tickets/versions/2").json()["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert get("/v2/models/tickets/ready").json() == {"name": "tickets", "ready": True}
    assert v2_refusal(get("/v2/models/nowhere/ready")) == 404
    assert v2_refusal(get("/v2/models/tickets/versions/17")) == 404
    assert v2_refusal(get("/v2/models/tickets/versions/3/ready")) == 409
    assert v2_refusal(get("/v2/models/minilm")) == 404
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert get(path, headers={"authorization": ""}).status_code == 200
    place.reason = "no replica answers"
    assert (get("/v2/health/live").status_code, get("/v2/health/ready").status_code, get("/v2/models/tickets/ready").status_code) == (
        200,
        503,
        503,
    )
    assert v2_refusal(get("/v2/models", headers={"authorization": ""})) == 401


def test_a_version_of_the_path_answers(place: Place) -> None:
    body = place.client.post("/v2/models/tickets/versions/2/infer", json=tensor("x")).json()
    assert (output(body, "label")["data"], body["model_version"], body["parameters"]["route"]) == ([SECOND], "2", "pinned")


def test_models_are_listed_as_the_openai_api_does(place: Place) -> None:
    listed = place.client.get("/v1/models").json()
    names = [one["id"] for one in listed["data"]]
    assert names == ["tickets", "tickets@champion", "tickets@challenger", "tickets@1", "tickets@2", "minilm"]
    for name in names:
        assert place.client.get(f"/v1/models/{name}").json()["id"] == name
    assert openai_refusal(place.client.get("/v1/models/gpt")) == (404, "invalid_request_error", "not_found")
    assert openai_refusal(place.client.get("/v1/models", headers={"authorization": ""})) == (401, "authentication_error", "not_permitted")


@pytest.mark.parametrize(("model", "digest"), [("tickets@champion", FIRST), ("tickets@2", SECOND), ("minilm", "base:minilm")])
def test_embeddings_come_of_a_task_a_version_or_a_base_with_real_counts(place: Place, model: str, digest: str) -> None:
    body = place.client.post("/v1/embeddings", json={"model": model, "input": ["one two", "three"], "user": "u"}).json()
    assert [d["embedding"] for d in body["data"]] == [[1.0] * 8] * 2
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert (body["model"], body["adapter_digest"], body["base_digest"]) == (model, digest, BASES["minilm"])
    assert [q for q, _ in place.asked] == [digest] * 2
    assert place.captures() == {}


def test_a_base64_embedding_holds_the_same_numbers(place: Place) -> None:
    body = place.client.post("/v1/embeddings", json={"model": "tickets", "input": "x", "encoding_format": "base64"}).json()
    assert np.frombuffer(base64.b64decode(body["data"][0]["embedding"]), "<f4").tolist() == [1.0] * 8


@pytest.mark.parametrize(
    "fields",
    [{"input": []}, {"input": ""}, {"input": [1, 2]}, {"input": [[1]]}, {"input": ["a", " "]}, {"encoding_format": "hex"},
     {"dimensions": 4}, {"model": ""}, {"model": 7}],
)  # fmt: skip
def test_embeddings_that_cannot_be_given_are_refused_in_the_apis_form(place: Place, fields: dict[str, Any]) -> None:
    response = place.client.post("/v1/embeddings", json={"model": "tickets", "input": "x", **fields})
    assert openai_refusal(response) == (400, "invalid_request_error", "request_invalid")
