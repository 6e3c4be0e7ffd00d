"""The gateway: takes a request over HTTP, finds out who answers, crosses Ray once with its micro-batch, spools the capture, replies.

It speaks three protocols, each in a file of its own, over one core (`answering`): Holdfast's own, the Open Inference Protocol v2,
and the OpenAI API's models and embeddings.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.errors import NotPermitted
from holdfast.serving.doors import Doorkeeper
from holdfast.serving.failures import problem, problem_of
from holdfast.serving.gateway_state import GatewayState
from holdfast.serving.openai_doors import OpenAIDoors
from holdfast.serving.task_doors import TaskDoors
from holdfast.serving.v2_doors import V2Doors

__all__ = ["GatewayState", "Lifespan", "make_app", "not_ready"]
Lifespan = Callable[[], AbstractAsyncContextManager[None]]
PREDICT = re.compile(r"/v1/tasks/([^/]+)/predict")


def make_app(state: GatewayState, lifespan: Lifespan | None = None) -> ASGIApp:
    """The ASGI application of a gateway. ``lifespan`` is entered around its life."""

    @asynccontextmanager
    async def _life(_: Starlette) -> AsyncIterator[None]:
        if lifespan is None:
            yield
            return
        async with lifespan():
            yield

    keeper, own = Doorkeeper(state), _OwnDoors(state)
    tasks = TaskDoors(keeper)
    doors = [*tasks.routes(), *V2Doors(keeper).routes(), *OpenAIDoors(keeper).routes(), *own.routes()]
    return _straight(Starlette(routes=doors, lifespan=_life, exception_handlers={404: _no_route, 405: _no_route}), tasks.predict)


def _straight(app: ASGIApp, predict: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """The application with a short way to the door that nearly all requests are for.

    Starlette's middleware and routes took 7% of the application's CPU per request and do nothing there: the doorkeeper turns
    every error into a reply itself.
    """

    async def straight(scope: Scope, receive: Receive, send: Send) -> None:
        found = PREDICT.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await app(scope, receive, send)
            return
        scope["path_params"] = {"task": found[1]}
        response = await predict(Request(scope, receive, send))
        await response(scope, receive, send)

    return straight


def not_ready(state: GatewayState) -> str | None:
    """Why this gateway takes no work; None when it does."""
    return "it ends, and finishes what it has" if state.draining.begun else state.ready()


class _OwnDoors:
    """Health and figures."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    def routes(self) -> list[HttpRoute]:
        """To be mounted."""
        return [
            HttpRoute("/healthz", self.health, methods=["GET"]),
            HttpRoute("/readyz", self.readiness, methods=["GET"]),
            HttpRoute("/metrics", self.figures, methods=["GET"]),
        ]

    async def health(self, _: Request) -> Response:
        """GET /healthz: the process lives."""
        return JSONResponse({"status": "ok"})

    async def readiness(self, _: Request) -> Response:
        """GET /readyz: a replica answers, and the process is not about to end."""
        reason = not_ready(self._state)
        if reason is not None:
            return problem(503, code="not_ready", detail=reason, mend="wait, or run `holdfast doctor`", headers={"Retry-After": "1"})
        return JSONResponse({"status": "ready", "generation": self._state.feed.generation})

    async def figures(self, request: Request) -> Response:
        """GET /metrics, for this machine alone: whoever scrapes from elsewhere goes through something that asks who it is."""
        if request.client is None or not _is_loopback(request.client.host):
            return problem_of(NotPermitted())
        return Response(self._state.metrics.text(), media_type="text/plain; version=0.0.4")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _no_route(request: Request, error: Exception) -> Response:
    status = int(getattr(error, "status_code", 404))
    code = "method_not_allowed" if status == 405 else "not_found"
    return problem(status, code=code, detail=f"There is no {request.method} {request.url.path[:200]}.", mend="POST /v1/tasks/TASK/predict")
