"""The OpenAI API's models and embeddings, so that its clients work: the embedding is the pooled vector that the task's head sees.

A task, a version of it or a base may be the model (`domain.model_names`). Embeddings are not captured: no label was given, so there
is nothing that feedback could correct, and texts that are indexed in bulk are not the task's traffic.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute

from holdfast.domain.ids import AdapterDigest
from holdfast.errors import RequestInvalid
from holdfast.serving.doors import Doorkeeper, Reply
from holdfast.serving.failures import refuse_as_openai
from holdfast.serving.gateway_state import Answered, Call
from holdfast.serving.routing_feed import Known
from holdfast.serving.schemas import MAX_ITEMS, Item, check_text, check_utf8, read_as

REMEDY = 'send {"model": "TASK", "input": "…"} or {"model": "TASK", "input": ["…", "…"]}'


class EmbeddingsRequest(BaseModel):
    """The body of a request; what this server does not know of it is ignored, as the API's clients expect."""

    model_config = ConfigDict(strict=True, frozen=True)

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    input: str | Annotated[list[str], Field(min_length=1, max_length=MAX_ITEMS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


_BODY: TypeAdapter[EmbeddingsRequest] = TypeAdapter(EmbeddingsRequest)


class OpenAIDoors:
    """The routes ``/v1/models`` and ``/v1/embeddings``."""

    def __init__(self, keeper: Doorkeeper) -> None:
        self._keeper = keeper

    def routes(self) -> list[HttpRoute]:
        """To be mounted."""
        return [
            HttpRoute("/v1/models", self.models, methods=["GET"]),
            HttpRoute("/v1/models/{model}", self.model, methods=["GET"]),
            HttpRoute("/v1/embeddings", self.embeddings, methods=["POST"]),
        ]

    async def models(self, request: Request) -> Response:
        """GET /v1/models: every name that is answered now."""
        return await self._keeper.serve(request, self._models, refuse_as_openai)

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{model}."""
        return await self._keeper.serve(request, self._model, refuse_as_openai)

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings."""
        return await self._keeper.serve(request, self._embeddings, refuse_as_openai)

    async def _models(self, _: Request, call: Call) -> Reply:
        known = self._keeper.state.feed.known
        return Reply(response=JSONResponse({"object": "list", "data": [_described(known, name) for name in names_of(known)]}))

    async def _model(self, request: Request, call: Call) -> Reply:
        name = str(request.path_params["model"])
        self._keeper.state.feed.target(name)
        return Reply(response=JSONResponse(_described(self._keeper.state.feed.known, name)))

    async def _embeddings(self, request: Request, call: Call) -> Reply:
        raw = await self._keeper.body(request)
        check_utf8(raw)
        asked = read_as(_BODY, raw, REMEDY)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        for index, text in enumerate(texts):
            check_text(text, f"input.{index}" if len(texts) > 1 else "input")
        target = self._keeper.state.feed.target(asked.model)
        answered = await self._keeper.answer(request, call, target, [Item(text=text) for text in texts], record=False)
        width = len(answered[0].embedding) // 2
        if asked.dimensions not in (None, width):
            remedy = f"leave it out; this model has {width}"
            raise RequestInvalid(place="dimensions", problem="embeddings are not shortened here", remedy=remedy)
        body = to_json(_embedded(asked, call, answered))
        return Reply(response=Response(body, media_type="application/json"), target=target, answered=answered)


def names_of(known: Known) -> list[str]:
    """Every name that is answered now: tasks, their champions, challengers and held versions, and the bases."""
    found = []
    for task, route in sorted(known.table.routes.items()):
        found += [task, f"{task}@champion"] + ([f"{task}@challenger"] if route.challenger else [])
        served = (*known.catalogue.held, route.champion, route.challenger)
        found += [f"{task}@{n}" for (of, n), digest in sorted(known.catalogue.numbers.items()) if of == task and digest in served]
    return found + [base for base in sorted(known.catalogue.bases) if base not in known.table.routes]


def _described(known: Known, name: str) -> dict[str, object]:
    task = name.rpartition(":")[2].partition("@")[0]
    route = known.table.routes.get(task)
    version = known.catalogue.versions.get(AdapterDigest(route.champion)) if route else None
    return {
        "id": name, "object": "model", "created": int(version.created_at.timestamp()) if version else 0,
        "owned_by": "holdfast",
    }  # fmt: skip


def _embedded(asked: EmbeddingsRequest, call: Call, answered: Sequence[Answered]) -> dict[str, object]:
    first, count = answered[0], sum(one.tokens[1] for one in answered)
    data = [{"object": "embedding", "index": i, "embedding": _vector(one, asked.encoding_format)} for i, one in enumerate(answered)]
    return {
        "object": "list", "data": data, "model": asked.model,
        "usage": {"prompt_tokens": count, "total_tokens": count},
        "adapter_digest": first.asked.choice.digest, "base_digest": first.base_digest, "generation": first.asked.choice.generation,
        "request_id": call.request_id, "truncated": any(one.truncated for one in answered),
    }  # fmt: skip


def _vector(one: Answered, form: str) -> object:
    values = np.frombuffer(one.embedding, dtype="<f2").astype("<f4")
    return base64.b64encode(values.tobytes()).decode() if form == "base64" else values.tolist()
