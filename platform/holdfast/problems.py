"""Responses, read: the JSON of a good one, and which error of the tree a problem names, with the texts of the server that sent it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2

from holdfast import errors
from holdfast.errors import HoldfastError, NotFound, PartUnavailable


def json_of(response: httpx2.Response) -> object:
    """The JSON value of a response. Raises PartUnavailable."""
    try:
        return response.json()
    except ValueError as error:
        raise PartUnavailable(part=str(response.url.host), reason="it answered something that is not JSON") from error


def object_of(response: httpx2.Response) -> dict[str, Any]:
    """The JSON object of a response. Raises PartUnavailable."""
    value = json_of(response)
    if not isinstance(value, dict):
        raise PartUnavailable(part=str(response.url.host), reason="it answered something that is not an object")
    return value


def error_of(response: httpx2.Response) -> HoldfastError:
    """The error that a problem response names by its code, with the message and mend of the server."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    code = str(body.get("code", ""))
    kind = _kinds().get(code) or _kind_of(response.status_code)
    message = str(body.get("detail") or f"The server answered {response.status_code}.")
    return _told(kind, code or kind.code, message, str(body.get("mend", "")))


def _told(kind: type[HoldfastError], code: str, message: str, mend: str) -> HoldfastError:
    """An error of a class whose fields stayed with the server: the texts are all that came over."""
    error = kind.__new__(kind)
    Exception.__init__(error, f"{message} {mend}".strip())
    error.fields, error.message, error.mend = {}, message, mend
    error.code = code
    return error


def _kinds() -> Mapping[str, type[HoldfastError]]:
    return {c.code: c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, HoldfastError)}


def _kind_of(status: int) -> type[HoldfastError]:
    known: dict[int, type[HoldfastError]] = {401: errors.NotPermitted, 404: NotFound, 409: errors.Conflict, 507: errors.StorageRefused}
    if status in known:
        return known[status]
    return errors.BadInput if status < 500 and status != 429 else errors.Unhealthy
