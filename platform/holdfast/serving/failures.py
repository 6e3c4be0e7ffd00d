"""What an error means on the data plane: a status, and a body in the form of the protocol that was spoken.

Holdfast's own doors answer with RFC 9457 problems, in the shape the control plane uses; the others with what their clients read.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from starlette.responses import JSONResponse, Response

from holdfast.errors import (
    BadInput,
    BodyTooLarge,
    Conflict,
    DeadlinePassed,
    HoldfastError,
    NotFound,
    NotPermitted,
    Overloaded,
    RequestUnfinished,
    Unhealthy,
)

STATUS: tuple[tuple[type[HoldfastError], int], ...] = (
    (BodyTooLarge, 413),
    (RequestUnfinished, 408),
    (BadInput, 422),
    (NotPermitted, 401),
    (NotFound, 404),
    (Conflict, 409),
    (Overloaded, 429),
    (DeadlinePassed, 504),
    (Unhealthy, 503),
)
"""First match wins, so a leaf stands before its branch."""
Refuse = Callable[[Exception, str], Response]
"""Error and request id to the reply. An error that is not of the tree is a fault of ours, whose text no caller sees."""


class Internal(HoldfastError):
    """Something went wrong inside Holdfast.

    Mend: see the log of the gateway.
    """

    code = "internal"


def told(error: Exception) -> HoldfastError:
    """The error as callers are told of it."""
    return error if isinstance(error, HoldfastError) else Internal()


def status_of(error: HoldfastError) -> int:
    """The HTTP status of an error of the tree."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def headers_of(error: HoldfastError) -> dict[str, str]:
    """The headers that go with a status: when to come again, how to be admitted."""
    retry_after = str(error.fields.get("retry_after_s", 1))
    return {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": retry_after}, 503: {"Retry-After": "2"}}.get(status_of(error), {})


def problem_of(error: HoldfastError) -> JSONResponse:
    """The problem response of an error of the tree."""
    return problem(status_of(error), code=error.code, detail=error.message, mend=error.mend, headers=headers_of(error))


def refuse_as_problem(error: Exception, request_id: str) -> Response:
    """A problem that names its request."""
    one = told(error)
    return problem(status_of(one), code=one.code, detail=one.message, mend=one.mend, headers=headers_of(one), request_id=request_id)


def refuse_as_v2(error: Exception, request_id: str) -> Response:
    """The error object of the Open Inference Protocol: ``{"error": text}``, with our code and id beside it."""
    one = told(error)
    status = 400 if status_of(one) == 422 else status_of(one)  # what its clients expect of a request they got wrong
    body = {"error": f"{one.message} {one.mend}".strip(), "code": one.code, "id": request_id}
    return JSONResponse(body, status_code=status, headers=headers_of(one))


def refuse_as_openai(error: Exception, request_id: str) -> Response:
    """The error object of the OpenAI API."""
    one = told(error)
    status = 400 if status_of(one) == 422 else status_of(one)
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error" if status < 500 else "server_error")
    body = {"message": f"{one.message} {one.mend}".strip(), "type": kind, "param": one.fields.get("place"), "code": one.code}
    return JSONResponse({"error": body, "request_id": request_id}, status_code=status, headers=headers_of(one))


def problem(
    status: int, *, code: str, detail: str, mend: str, headers: dict[str, str] | None = None, request_id: str | None = None
) -> JSONResponse:  # fmt: skip
    """One problem response."""
    body = {
        "type": f"urn:holdfast:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "mend": mend,
    } | ({"request_id": request_id} if request_id else {})
    return JSONResponse(body, status_code=status, headers=headers, media_type="application/problem+json")
