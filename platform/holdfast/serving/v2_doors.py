"""The Open Inference Protocol v2 over REST, so that KServe's and Triton's clients work: one input `text`, BYTES of any length.

Source: KServe, "Open Inference Protocol" (predict/v2, REST). Outputs: `label`, `confidence`, `adapter_digest`, `request_id` and
`truncated`, one element per text; `embedding` only where it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute

from holdfast import __version__
from holdfast.domain.ids import AdapterDigest
from holdfast.domain.model_names import Target
from holdfast.errors import NotFound, RequestInvalid
from holdfast.serving.doors import Doorkeeper, Reply
from holdfast.serving.failures import refuse_as_v2
from holdfast.serving.gateway_state import Answered, Call
from holdfast.serving.schemas import Item, check_text, read_slices
from holdfast.serving.v2_tensors import LENGTH_HEADER, InferRequest, Output, read_request, reply_bytes

SLICE = "slice_"
"""Begins the names of parameters that are slices: parameters are scalars."""
ALWAYS = ("label", "confidence", "adapter_digest", "request_id", "truncated")
DATATYPES = {
    "label": "BYTES", "confidence": "FP32", "adapter_digest": "BYTES", "request_id": "BYTES", "truncated": "BOOL", "embedding": "FP32",
}  # fmt: skip


class V2Doors:
    """The routes under ``/v2``."""

    def __init__(self, keeper: Doorkeeper) -> None:
        self._keeper = keeper

    def routes(self) -> list[HttpRoute]:
        """To be mounted."""
        found = [
            HttpRoute("/v2", self.server, methods=["GET"]),
            HttpRoute("/v2/health/live", self.live, methods=["GET"]),
            HttpRoute("/v2/health/ready", self.ready, methods=["GET"]),
            HttpRoute("/v2/models", self.models, methods=["GET"]),
        ]
        for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            found += [
                HttpRoute(model, self.model, methods=["GET"]),
                HttpRoute(f"{model}/ready", self.model_ready, methods=["GET"]),
                HttpRoute(f"{model}/infer", self.infer, methods=["POST"]),
            ]
        return found

    async def server(self, request: Request) -> Response:
        """GET /v2: what this server is."""
        return await self._keeper.serve(request, self._server, refuse_as_v2)

    async def live(self, _: Request) -> Response:
        """GET /v2/health/live: the process lives."""
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        """GET /v2/health/ready: a replica answers."""
        state = self._keeper.state
        ready = not state.draining.begun and state.ready() is None
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    async def models(self, request: Request) -> Response:
        """GET /v2/models: the names of what is served."""
        return await self._keeper.serve(request, self._models, refuse_as_v2)

    async def model(self, request: Request) -> Response:
        """GET /v2/models/{model}: its tensors and versions."""
        return await self._keeper.serve(request, self._model, refuse_as_v2)

    async def model_ready(self, request: Request) -> Response:
        """GET /v2/models/{model}/ready: whether its version is held by a replica."""
        return await self._keeper.serve(request, self._model_ready, refuse_as_v2)

    async def infer(self, request: Request) -> Response:
        """POST /v2/models/{model}/infer."""
        return await self._keeper.serve(request, self._infer, refuse_as_v2)

    async def _server(self, _: Request, call: Call) -> Reply:
        return Reply(response=JSONResponse({"name": "holdfast", "version": __version__, "extensions": ["binary_tensor_data"]}))

    async def _models(self, _: Request, call: Call) -> Reply:
        return Reply(response=JSONResponse({"models": sorted(self._keeper.state.feed.known.table.routes)}))

    async def _model(self, request: Request, call: Call) -> Reply:
        target, known = self._target(request), self._keeper.state.feed.known
        versions = sorted(number for task, number in known.catalogue.numbers if task == target.task)
        body = {
            "name": request.path_params["model"], "versions": [str(number) for number in versions], "platform": "holdfast_lora",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": n, "datatype": DATATYPES[n], "shape": [-1]} for n in ALWAYS]
            + [{"name": "embedding", "datatype": "FP32", "shape": [-1, -1]}],
        }  # fmt: skip
        return Reply(response=JSONResponse(body))

    async def _model_ready(self, request: Request, call: Call) -> Reply:
        target, state = self._target(request), self._keeper.state
        digest = target.choice("").digest
        ready = state.ready() is None and not state.draining.begun and digest in state.feed.known.catalogue.held
        return Reply(response=JSONResponse({"name": target.name, "ready": ready}, status_code=200 if ready else 503))

    async def _infer(self, request: Request, call: Call) -> Reply:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RequestInvalid(place="content-encoding", problem="no compression is read here", remedy="send the body as it is")
        infer, texts = read_request(await self._keeper.body(request), request.headers.get(LENGTH_HEADER))
        target = self._target(request)
        for index, text in enumerate(texts):
            check_text(text, f"inputs.0.data.{index}")
        wanted, slices = _wanted(infer), _slices(infer)
        call = replace(call, request_id=infer.id or call.request_id, deadline=_deadline(infer, call))
        answered = await self._keeper.answer(request, call, target, [Item(text=text, slices=slices) for text in texts])
        outputs = [_output(name, answered) for name in wanted]
        body, headers = reply_bytes(self._head(target, call, answered), outputs, _binary(infer, wanted))
        return Reply(response=Response(body, headers=headers), target=target, answered=answered)

    def _target(self, request: Request) -> Target:
        """The task of the path, at the version of the path if it names one. Raises NotFound, VersionNotHeld."""
        model, version = str(request.path_params["model"]), request.path_params.get("version")
        target = self._keeper.state.feed.target(model if version is None else f"{model}@{version}")
        if target.task is None:
            raise NotFound(kind="served task", name=target.name)
        return target

    def _head(self, target: Target, call: Call, answered: Sequence[Answered]) -> dict[str, object]:
        first = answered[0]
        version = self._keeper.state.feed.known.catalogue.versions.get(AdapterDigest(first.asked.choice.digest))
        parameters = {
            "adapter_digest": first.asked.choice.digest, "base_digest": first.base_digest or "unknown",
            "generation": first.asked.choice.generation, "request_id": call.request_id, "route": first.asked.choice.route,
            "latency_ms": first.latency_ms,
        }  # fmt: skip
        head: dict[str, object] = {"model_name": target.task, "id": call.request_id, "parameters": parameters}
        return head | ({"model_version": str(version.number)} if version else {})


def _wanted(infer: InferRequest) -> list[str]:
    names = [one.name for one in infer.outputs] if infer.outputs else list(ALWAYS)
    for index, name in enumerate(names):
        if name not in DATATYPES:
            raise RequestInvalid(place=f"outputs.{index}.name", problem="there is no such output", remedy=f"ask for {', '.join(DATATYPES)}")
    return names


def _slices(infer: InferRequest) -> dict[str, str]:
    """Parameters of the request that begin with ``slice_``: of each of its texts. Raises RequestInvalid."""
    given = {name.removeprefix(SLICE): value for name, value in infer.parameters.items() if name.startswith(SLICE)}
    return read_slices(given, f"parameters.{SLICE}*")


def _binary(infer: InferRequest, wanted: Sequence[str]) -> frozenset[str]:
    """The outputs that go into the binary part: those that ask for it, or all when the request does."""
    every = infer.parameters.get("binary_data_output") is True
    asked = {one.name: one.parameters.get("binary_data", every) for one in infer.outputs or ()}
    return frozenset(name for name in wanted if asked.get(name, every) is True)


def _deadline(infer: InferRequest, call: Call) -> float:
    """Triton's `timeout` parameter, in microseconds, where it is nearer than what holds already."""
    timeout = infer.parameters.get("timeout")
    if not isinstance(timeout, int) or isinstance(timeout, bool) or timeout <= 0:
        return call.deadline
    return min(call.deadline, asyncio.get_running_loop().time() + timeout / 1e6)


def _output(name: str, answered: Sequence[Answered]) -> Output:
    if name == "confidence":
        return Output(name=name, datatype="FP32", values=np.array([one.confidence for one in answered], dtype=np.float32))
    if name == "truncated":
        return Output(name=name, datatype="BOOL", values=np.array([one.truncated for one in answered]))
    if name == "embedding":
        rows = [np.frombuffer(one.embedding, dtype="<f2").astype(np.float32) for one in answered]
        return Output(name=name, datatype="FP32", values=np.stack(rows))
    if name == "label":
        return Output(name=name, datatype="BYTES", values=[one.label for one in answered])
    ids = [one.asked.request_id if name == "request_id" else str(one.asked.choice.digest) for one in answered]
    return Output(name=name, datatype="BYTES", values=ids)
