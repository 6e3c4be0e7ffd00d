"""The only place that knows what an error means in HTTP: RFC 9457 problems, always in one shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from holdfast.errors import (
    BadInput,
    Conflict,
    ContractInvalid,
    GateRefused,
    HoldfastError,
    LedgerBroken,
    NotFound,
    NotPermitted,
    Problem,
    StorageRefused,
    Unhealthy,
)

MEDIA_TYPE = "application/problem+json"
STATUS: tuple[tuple[type[HoldfastError], int], ...] = (
    (StorageRefused, 507),
    (BadInput, 422),
    (NotPermitted, 401),
    (NotFound, 404),
    (Conflict, 409),
    (GateRefused, 409),
    (Unhealthy, 503),
    (LedgerBroken, 500),
)
"""First match wins, so a leaf stands before its branch."""


class Place(BaseModel):
    """One mistake in an input."""

    place: str
    message: str


class ProblemBody(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(examples=["urn:holdfast:problem:not_found"])
    title: str
    status: int
    code: str = Field(description="Stable name of the kind of error.")
    detail: str
    mend: str = Field(description="What to do next.")
    request_id: str = Field(description="Correlation id; the log carries the same.")
    problems: list[Place] = Field(default=[], description="Every mistake with its place, where there is more than one.")


def status_of(error: HoldfastError) -> int:
    """The HTTP status of an error of the tree."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def problem(
    status: int,
    *,
    code: str,
    detail: str,
    mend: str,
    request_id: str,
    problems: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """One problem response."""
    body = ProblemBody(
        type=f"urn:holdfast:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        code=code,
        detail=detail,
        mend=mend,
        request_id=request_id,
        problems=[Place(place=p.place, message=p.message) for p in problems],
    )
    return JSONResponse(body.model_dump(), status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def of_error(error: HoldfastError, request_id: str) -> JSONResponse:
    """The problem of an error of the tree."""
    status = status_of(error)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status == 503:
        headers["Retry-After"] = "2"
    places = error.problems if isinstance(error, ContractInvalid) else ()
    return problem(status, code=error.code, detail=error.message, mend=error.mend, request_id=request_id, problems=places, headers=headers)


def unexpected(request_id: str) -> JSONResponse:
    """The problem of an error nobody planned: nothing of its inside, and the id under which the log tells it."""
    return problem(
        500, code="internal", detail="Something went wrong inside Holdfast.", request_id=request_id,
        mend=f"look for {request_id} in the log of the API (`holdfast status` names it)",
    )  # fmt: skip


def install(app: FastAPI, page: Callable[[Request, HoldfastError], Response | None]) -> None:
    """Make the app answer every error in the one shape; ``page`` may answer a browser with a page instead."""

    async def on_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HoldfastError)
        return page(request, error) or of_error(error, request.state.request_id)

    app.add_exception_handler(HoldfastError, on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


def documented(*codes: int) -> dict[int | str, dict[str, object]]:
    """The ``responses`` of a route for OpenAPI: a problem for each status."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
    return {code: {"description": HTTPStatus(code).phrase, "content": content} for code in codes}


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    places = [Problem(".".join(map(str, e["loc"])), str(jsonable_encoder(e["msg"]))) for e in error.errors()[:50]]
    return problem(
        422, code="request_invalid", detail=f"The request has {len(error.errors())} mistake(s): {places[0]}",
        mend="correct the named places and send it again; nothing was changed", request_id=request.state.request_id, problems=places,
    )  # fmt: skip


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed", 400: "bad_input"}
    return problem(
        error.status_code, code=codes.get(error.status_code, "request_invalid"), detail=str(error.detail),
        mend="see /api/v1/openapi.json for the routes", request_id=request.state.request_id, headers=error.headers,
    )  # fmt: skip
