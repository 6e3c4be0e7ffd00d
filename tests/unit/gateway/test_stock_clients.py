"""Clients that others wrote, as they come: Triton's v2 client (which KServe's servers answer too) and OpenAI's, over a real socket."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .gateway_place import BASES, KEY, SECOND
from .test_http_server import Running

openai = pytest.importorskip("openai", reason="the `openai` package is not installed (a dev extra)")
triton = pytest.importorskip("tritonclient.http", reason="the `tritonclient[http]` package is not installed (a dev extra)")
TEXTS = np.array(["where is it", "Grüße 测试 \U0001f600"], dtype=np.object_)


def headers() -> dict[str, str]:
    """Made anew for each call: the client writes into what it is given."""
    return {"authorization": f"Bearer {KEY}"}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path) as running:
        yield running


@pytest.fixture
def client(running: Running) -> Iterator[Any]:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{running.port}/v1", api_key=KEY, max_retries=0, http_client=openai.DefaultHttpxClient(trust_env=False)
    ) as client:
        yield client


@pytest.fixture
def server(running: Running) -> Iterator[Any]:
    client = triton.InferenceServerClient(f"127.0.0.1:{running.port}")
    yield client
    client.close()


def test_the_openai_client_lists_models(client: Any) -> None:
    assert [model.id for model in client.models.list()][:2] == ["tickets", "tickets@champion"]
    assert client.models.retrieve("tickets@2").owned_by == "holdfast"


@pytest.mark.parametrize("form", ["base64", "float", None])
def test_the_openai_client_gets_embeddings_in_either_form(client: Any, form: str | None) -> None:
    asked = {"model": "tickets", "input": list(TEXTS)} | ({"encoding_format": form} if form else {})
    reply = client.embeddings.create(**asked)
    assert len(reply.data) == 2
    vector = reply.data[1].embedding
    assert (np.frombuffer(base64.b64decode(vector), "<f4").tolist() if form == "base64" else vector) == [1.0] * 8
    assert reply.usage.prompt_tokens == 6
    assert reply._request_id


def test_the_openai_client_raises_what_it_raises_elsewhere(client: Any, running: Running) -> None:
    with pytest.raises(openai.NotFoundError, match="no served task"):
        client.embeddings.create(model="gpt", input="x")
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="tickets", input=" ")
    with pytest.raises(openai.ConflictError):
        client.embeddings.create(model="tickets@3", input="x")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="hf_wrong").models.list()


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_the_triton_client_infers_in_json_and_in_binary(server: Any, binary_in: bool, binary_out: bool | None) -> None:
    tensor = triton.InferInput("text", [2], "BYTES")
    tensor.set_data_from_numpy(TEXTS, binary_data=binary_in)
    names = ("label", "confidence", "embedding", "truncated", "request_id")
    wanted = None if binary_out is None else [triton.InferRequestedOutput(name, binary_data=binary_out) for name in names]
    reply = server.infer("tickets", [tensor], model_version="2", outputs=wanted, request_id="call-9", headers=headers())
    text = str if binary_out is False else bytes.decode  # in JSON the client leaves texts as they are
    assert [text(one) for one in reply.as_numpy("label")] == [SECOND, SECOND]
    assert reply.as_numpy("confidence").tolist() == [0.875, 0.875]
    assert [text(one) for one in reply.as_numpy("request_id")] == ["call-9.0", "call-9.1"]
    if binary_out is not None:
        assert reply.as_numpy("embedding").shape == (2, 8)
        assert reply.as_numpy("truncated").tolist() == [False, False]
    said = reply.get_response()
    assert (said["id"], said["model_version"], said["parameters"]["base_digest"]) == ("call-9", "2", BASES["minilm"])


def test_the_triton_client_asks_after_health_and_models(server: Any, running: Running) -> None:
    assert server.is_server_live() and server.is_server_ready()
    assert server.is_model_ready("tickets", headers=headers())
    assert not server.is_model_ready("tickets", model_version="3", headers=headers())
    assert server.get_server_metadata(headers=headers())["name"] == "holdfast"
    assert server.get_model_metadata("tickets", headers=headers())["inputs"][0]["name"] == "text"
    tensor = triton.InferInput("text", [1], "BYTES")
    tensor.set_data_from_numpy(np.array(["x"], dtype=np.object_))
    with pytest.raises(triton.InferenceServerException, match="no served task"):
        server.infer("nowhere", [tensor], headers=headers())
    with pytest.raises(triton.InferenceServerException, match="no valid API key"):
        server.infer("tickets", [tensor])
    running.place.reason = "no replica answers"
    assert not server.is_server_ready()
