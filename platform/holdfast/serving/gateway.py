"""The gateway: takes a request over HTTP, finds out who answers, crosses Ray once with its micro-batch, spools the capture, replies.

On this path there is no database, no MLflow and no lock that anyone holds for long.
"""

from __future__ import annotations

import ipaddress
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import numpy as np
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute

from holdfast.domain.captures import Capture, Prediction
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.domain.routing import Choice, Route, choose
from holdfast.errors import BodyTooLarge, HoldfastError, NotFound, NotPermitted, RequestInvalid
from holdfast.ports import Clock
from holdfast.serving.answers import answer_fields
from holdfast.serving.batching import Answer, Batcher
from holdfast.serving.capture_buffer import CaptureBuffer
from holdfast.serving.failures import problem, problem_of, status_of
from holdfast.serving.metrics import GatewayMetrics
from holdfast.serving.routing_feed import RoutingFeed
from holdfast.serving.schemas import BODY_BYTES, Item, is_request_id, read_body

log = logging.getLogger("holdfast.serving")
Lifespan = Callable[[], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayState:
    """All that a request needs."""

    feed: RoutingFeed
    batcher: Batcher
    buffer: CaptureBuffer | None
    """None records nothing: for benches only."""
    clock: Clock
    metrics: GatewayMetrics
    deadline_s: float
    ready: Callable[[], str | None]
    """Why the gateway is not ready; None when it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """One text, its id, and the version that answers it."""

    item: Item
    request_id: str
    choice: Choice


def make_app(state: GatewayState, lifespan: Lifespan | None = None) -> Starlette:
    """The ASGI application of a gateway. ``lifespan`` is entered around its life."""

    @asynccontextmanager
    async def _life(_: Starlette) -> AsyncIterator[None]:
        if lifespan is None:
            yield
            return
        async with lifespan():
            yield

    door = _Door(state)
    routes = [
        HttpRoute("/v1/tasks/{task}/predict", door.predict, methods=["POST"]),
        HttpRoute("/healthz", door.health, methods=["GET"]),
        HttpRoute("/readyz", door.readiness, methods=["GET"]),
        HttpRoute("/metrics", door.figures, methods=["GET"]),
    ]
    handlers = {404: _no_route, 405: _no_route}
    return Starlette(routes=routes, lifespan=_life, exception_handlers=handlers)


class _Door:
    """The HTTP side."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def predict(self, request: Request) -> Response:
        """POST /v1/tasks/{task}/predict."""
        started = time.perf_counter()
        metrics, task = self._state.metrics, str(request.path_params["task"])
        try:
            response = await self._predict(request, task, started)
            metrics.seconds.labels(task).observe(time.perf_counter() - started)
            metrics.requests.labels(task, "answered").inc()
        except HoldfastError as error:
            known = task if self._state.feed.route(task) else "unknown"  # a caller must not be able to make new series
            metrics.requests.labels(known, error.code).inc()
            if status_of(error) >= 500:
                log.warning("%s: %s", task, error)
            return problem_of(error)
        except Exception:
            log.exception("a request to %s failed", task)
            metrics.requests.labels("unknown", "internal").inc()
            return problem(500, code="internal", detail="Something went wrong inside Holdfast.", mend="see the log of the gateway")
        return response

    async def health(self, _: Request) -> Response:
        """GET /healthz: the process lives."""
        return JSONResponse({"status": "ok"})

    async def readiness(self, _: Request) -> Response:
        """GET /readyz: a replica answers."""
        reason = self._state.ready()
        if reason is not None:
            return problem(503, code="not_ready", detail=reason, mend="wait, or run `holdfast doctor`", headers={"Retry-After": "1"})
        return JSONResponse({"status": "ready", "generation": self._state.feed.generation})

    async def figures(self, request: Request) -> Response:
        """GET /metrics, for this machine alone: whoever scrapes from elsewhere goes through something that asks who it is."""
        if request.client is None or not _is_loopback(request.client.host):
            return problem_of(NotPermitted())
        return Response(self._state.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _predict(self, request: Request, task: str, started: float) -> Response:
        self._admit(request)
        items, several = read_body(await _bounded(request))
        route = self._state.feed.route(task)
        if route is None:
            raise NotFound(kind="served task", name=task[:80])
        chosen = [_choose(route, item, request) for item in items]
        questions = [(c.choice.digest, c.item.text) for c in chosen]
        answers = await self._state.batcher.answer(questions, deadline_s=self._state.deadline_s)
        latency_ms = round((time.perf_counter() - started) * 1e3, 3)
        kept = self._record(route, chosen, answers, latency_ms)
        for one in chosen:
            self._state.metrics.rows.labels(task, one.choice.route).inc()
        bodies = [_body(one, answer, latency_ms) for one, answer in zip(chosen, answers, strict=True)]
        headers = {
            "x-holdfast-request-id": chosen[0].request_id,
            "x-holdfast-adapter": chosen[0].choice.digest,
            "x-holdfast-capture": "stored" if kept else "refused",
        }
        return Response(to_json({"answers": bodies} if several else bodies[0]), media_type="application/json", headers=headers)

    def _admit(self, request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self._state.feed.admits(key.strip()):
            raise NotPermitted()

    def _record(self, route: Route, chosen: Sequence[Chosen], answers: Sequence[Answer], latency_ms: float) -> bool:
        """Spool every capture, before the reply. False when the disk did not take all of them."""
        if self._state.buffer is None:
            return False
        now, kept = self._state.clock(), True
        for one, (label, confidence, embedding) in zip(chosen, answers, strict=True):
            capture = Capture(
                capture_id=CaptureId(one.request_id),
                task=TaskName(route.task),
                text=one.item.text,
                prediction=Prediction(label=label, confidence=confidence),
                adapter_digest=one.choice.digest,
                generation=one.choice.generation,
                route=one.choice.route,
                captured_at=now,
                latency_ms=latency_ms,
                embedding=np.frombuffer(embedding, dtype="<f2"),
                slices=one.item.slices,
            )
            kept = self._state.buffer.accept(capture) and kept
        return kept


def _choose(route: Route, item: Item, request: Request) -> Chosen:
    request_id = item.request_id or request.headers.get("x-request-id") or uuid.uuid4().hex
    if not is_request_id(request_id):
        remedy = "use at most 128 letters, digits and . _ : / -"
        raise RequestInvalid(place="x-request-id", problem="it is not a request id", remedy=remedy)
    return Chosen(item=item, request_id=request_id, choice=choose(route, request_id))


def _body(one: Chosen, answer: Answer, latency_ms: float) -> dict[str, object]:
    return {
        "request_id": one.request_id,
        **answer_fields(answer[0], answer[1]),
        "adapter_digest": one.choice.digest,
        "generation": one.choice.generation,
        "route": one.choice.route,
        "latency_ms": latency_ms,
    }


async def _bounded(request: Request) -> bytes:
    """The body. Raises BodyTooLarge as soon as it is known to be."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > BODY_BYTES:
        raise BodyTooLarge(limit_mib=BODY_BYTES >> 20)
    parts, size = [], 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > BODY_BYTES:
            raise BodyTooLarge(limit_mib=BODY_BYTES >> 20)
    return b"".join(parts)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _no_route(request: Request, error: Exception) -> Response:
    status = int(getattr(error, "status_code", 404))
    code = "method_not_allowed" if status == 405 else "not_found"
    return problem(status, code=code, detail=f"There is no {request.method} {request.url.path[:200]}.", mend="POST /v1/tasks/TASK/predict")
