"""What an error means on the data plane: RFC 9457 problems, in the shape the control plane uses."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import JSONResponse

from holdfast.errors import (
    BadInput,
    BodyTooLarge,
    DeadlinePassed,
    HoldfastError,
    NotFound,
    NotPermitted,
    Overloaded,
    Unhealthy,
)

STATUS: tuple[tuple[type[HoldfastError], int], ...] = (
    (BodyTooLarge, 413),
    (BadInput, 422),
    (NotPermitted, 401),
    (NotFound, 404),
    (Overloaded, 429),
    (DeadlinePassed, 504),
    (Unhealthy, 503),
)
"""First match wins, so a leaf stands before its branch."""


def status_of(error: HoldfastError) -> int:
    """The HTTP status of an error of the tree."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def problem_of(error: HoldfastError) -> JSONResponse:
    """The problem response of an error of the tree."""
    status = status_of(error)
    headers = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "2"}}.get(status)
    return problem(status, code=error.code, detail=error.message, mend=error.mend, headers=headers)


def problem(status: int, *, code: str, detail: str, mend: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """One problem response."""
    body = {
        "type": f"urn:holdfast:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "mend": mend,
    }
    return JSONResponse(body, status_code=status, headers=headers, media_type="application/problem+json")
