"""What every door of the data plane does alike: who asks, in which trace, until when; and what a refusal looks like."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from holdfast.domain.model_names import Target
from holdfast.errors import BodyTooLarge, HoldfastError, NotPermitted, RequestInvalid, RequestUnfinished
from holdfast.serving.answering import Answering
from holdfast.serving.failures import Refuse, refuse_as_problem, status_of
from holdfast.serving.gateway_state import Answered, Call, GatewayState
from holdfast.serving.schemas import BODY_BYTES, Item, is_request_id
from holdfast.serving.trace_context import trace_of

log = logging.getLogger("holdfast.serving")
TIMEOUT_HEADER = "x-request-timeout-ms"
SESSION_HEADER = "x-holdfast-session"
REQUEST_ID_HEADER = "x-request-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a door found, before it goes out."""

    response: Response
    target: Target | None = None
    answered: Sequence[Answered] = ()


Handle = Callable[[Request, Call], Awaitable[Reply]]


class Doorkeeper:
    """Admits requests, and sends every reply with its headers and counts."""

    def __init__(self, state: GatewayState) -> None:
        self.state = state
        self.answering = Answering(state)

    async def serve(self, request: Request, handle: Handle, refuse: Refuse = refuse_as_problem) -> Response:
        """The reply of ``handle``, or the refusal in the form of its protocol."""
        started, trace = time.perf_counter(), trace_of(request.headers)
        request_id, facts = uuid.uuid4().hex, _facts(())
        task = self._task_of(_named(request))
        try:
            request_id = _given_id(request) or request_id
            call = Call(
                request_id=request_id, session=_session(request), caller=self._caller(request), trace=trace,
                deadline=self._deadline(request),
            )  # fmt: skip
            reply = await handle(request, call)
            self._count((reply.target.task or "base") if reply.target else "none", "answered", started)
            response, facts = self._finished(reply), _facts(reply.answered)
        except HoldfastError as error:
            self._count(task, error.code, None)
            if status_of(error) >= 500:
                log.warning("%s (request %s, trace %s): %s", task, request_id, trace.trace_id, error)
            response = refuse(error, request_id)
        except ClientDisconnect:
            self._count(task, "disconnected", None)
            response = refuse(RequestUnfinished(seconds=round(time.perf_counter() - started, 3)), request_id)
        except Exception as error:
            log.exception("a request failed (request %s, trace %s)", request_id, trace.trace_id)
            self._count("unknown", "internal", None)
            response = refuse(error, request_id)
        told = {"x-holdfast-request-id": request_id, **facts, **trace.headers()}
        told[REQUEST_ID_HEADER] = told["x-holdfast-request-id"]
        response.raw_headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in told.items()]  # no door sets these
        return response

    async def answer(self, request: Request, call: Call, target: Target, items: Sequence[Item], *, record: bool = True) -> list[Answered]:
        """The answers, unless the caller goes away first: then its place in the queue is free, and nothing is recorded.

        Raises what `Answering.answer` raises, and ClientDisconnect.
        """
        waits, answering = asyncio.current_task(), True

        def left(_: object) -> None:
            if answering and waits is not None:
                waits.cancel()

        gone = asyncio.ensure_future(_gone(request))
        gone.add_done_callback(left)
        try:
            return await self.answering.answer(call, target, items, record=record)
        except asyncio.CancelledError:
            if waits is None or not gone.done() or waits.uncancel():  # it is the server that ends
                raise
            raise ClientDisconnect from None
        finally:
            answering = False  # whoever leaves from here on leaves the reply
            gone.cancel()

    async def body(self, request: Request) -> bytes:
        """The body. Raises BodyTooLarge as soon as it is known to be, and RequestUnfinished when it takes too long to arrive."""
        try:
            async with asyncio.timeout(self.state.body_s):
                return await _bounded(request)
        except TimeoutError as error:
            raise RequestUnfinished(seconds=self.state.body_s) from error

    def _finished(self, reply: Reply) -> Response:
        response = reply.response
        if reply.target is not None and any(one.asked.choice.shadow for one in reply.answered):
            response.background = BackgroundTask(self.answering.copy_to_shadow, reply.target, reply.answered)
        return response

    def _caller(self, request: Request) -> str:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        caller = self.state.feed.caller(key.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            raise NotPermitted()
        return caller

    def _deadline(self, request: Request) -> float:
        return asyncio.get_running_loop().time() + wanted_s(request.headers.get(TIMEOUT_HEADER), self.state.deadline_s)

    def _task_of(self, name: str) -> str:
        """The task of a name, for the counters: a caller must not be able to make new series."""
        task = name.rpartition(":")[2].partition("@")[0]
        return task if self.state.feed.route(task) else "unknown"

    def _count(self, task: str, outcome: str, started: float | None) -> None:
        """``task``: `base` for a base, `none` for what asks no model, `unknown` for a name that is no task."""
        metrics = self.state.metrics
        metrics.requests.labels(task, outcome).inc()
        if started is not None:
            metrics.seconds.labels(task).observe(time.perf_counter() - started)


def wanted_s(text: str | None, most_s: float) -> float:
    """Seconds that a caller gives the request, from whole milliseconds; never more than the setting. Raises RequestInvalid."""
    if text is None:
        return most_s
    if not (text.isascii() and text.isdecimal()) or not 0 < len(text) < 10 or int(text) == 0:
        remedy = "send a whole number of milliseconds, 1 or more"
        raise RequestInvalid(place=TIMEOUT_HEADER, problem="it is not a number of milliseconds", remedy=remedy)
    return min(int(text) / 1e3, most_s)


def check_request_id(text: str, place: str) -> str:
    """The id itself. Raises RequestInvalid."""
    if not is_request_id(text):
        remedy = "use at most 128 letters, digits and . _ : / -"
        raise RequestInvalid(place=place, problem="it is not a request id", remedy=remedy)
    return text


def _given_id(request: Request) -> str | None:
    given = request.headers.get(REQUEST_ID_HEADER)
    return None if given is None else check_request_id(given, REQUEST_ID_HEADER)


def _session(request: Request) -> str | None:
    given = request.headers.get(SESSION_HEADER)
    return None if not given else check_request_id(given, SESSION_HEADER)


async def _gone(request: Request) -> None:
    """Returns when the caller closed the connection. The body was read to its end."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _named(request: Request) -> str:
    return str(request.path_params.get("task") or request.path_params.get("model") or "")


def _facts(answered: Sequence[Answered]) -> Mapping[str, str]:
    """Who answered, for callers that look at headers alone: of the first text."""
    if not answered:
        return {}
    first = answered[0]
    captures = {one.capture for one in answered}
    return {
        "x-holdfast-request-id": first.asked.request_id,
        "x-holdfast-adapter": first.asked.choice.digest,
        "x-holdfast-base": first.base_digest or "unknown",
        "x-holdfast-generation": str(first.asked.choice.generation),
        "x-holdfast-route": first.asked.choice.route,
        "x-holdfast-capture": "refused" if "refused" in captures else first.capture,
    }


async def _bounded(request: Request) -> bytes:
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
