"""The guard in front of the app: host names, body sizes, keys, security headers, and errors nobody planned.

It denies by default. A path answers without a key only if it stands in `OPEN` (or below ``/static/``); a new route is guarded
without a line of its own.
"""

from __future__ import annotations

import functools
import ipaddress
import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

import anyio.to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.api import failures
from holdfast.api.console.sessions import COOKIE, Session, Sessions
from holdfast.api.keys import KeyRing
from holdfast.errors import HoldfastError, NotPermitted

OPEN = frozenset({"/healthz", "/readyz", "/login", "/metrics"})
"""Answer without a key; `/metrics` only to loopback."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
BODY_LIMIT = 1 << 20
DATASET_LIMIT = 32 << 20
DATASET_PATH = re.compile(r"/api/v1/tasks/[^/]+/datasets|/api/v1/reviews/[^/]+/table|/tasks/[^/]+/review/table")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
log = logging.getLogger("holdfast.api")


class Guard:
    """ASGI middleware. Sets ``state.request_id`` and ``state.caller`` (and ``state.session`` for the console)."""

    def __init__(self, app: ASGIApp, *, ring: KeyRing, sessions: Sessions, hosts: Iterable[str]) -> None:
        self.app, self.ring, self.sessions = app, ring, sessions
        self.hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(10)}"
        scope.setdefault("state", {})["request_id"] = request_id
        reply = _Reply(send, request_id)
        try:
            refused = await self._refusal(scope, headers, request_id)
            body = None if refused else await _bounded_body(receive, headers, _limit(scope["path"]))
            if refused is None and body is None:
                refused = _too_large(request_id, _limit(scope["path"]))
            await (refused(scope, receive, reply) if refused else self.app(scope, _Replay(body or b"", receive), reply))
        except HoldfastError as error:
            await _answer(failures.of_error(error, request_id), scope, receive, reply, error)
        except Exception as error:
            log.exception("request %s (%s %s) failed", request_id, scope["method"], scope["path"])
            await _answer(failures.unexpected(request_id), scope, receive, reply, error)

    async def _refusal(self, scope: Scope, headers: Headers, request_id: str) -> Response | None:
        """Why the request goes no further; None when it may."""
        if not _host_allowed(headers.get("host", ""), self.hosts):
            return _refuse(421, "host_refused", "The Host header names no address of this server.", "use http://127.0.0.1:PORT", request_id)
        if headers.get("content-encoding", "identity") != "identity":
            return _refuse(415, "encoding_refused", "Compressed bodies are not read.", "send it uncompressed", request_id)
        path = scope["path"]
        if path == "/metrics" and not _is_local(scope):
            return failures.of_error(NotPermitted(), request_id)
        if path in OPEN or path.startswith("/static/"):
            return None
        return await self._identify(scope, headers, request_id)

    async def _identify(self, scope: Scope, headers: Headers, request_id: str) -> Response | None:
        state = scope["state"]
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and key:
            holder = await anyio.to_thread.run_sync(self.ring.holder, key.strip())
            if holder is not None:
                state["caller"], state["session"] = holder.name, None
                return None
            return failures.of_error(NotPermitted(), request_id)
        if scope["path"].startswith("/api/"):  # a cookie opens no API route: nothing there needs a CSRF token
            return failures.of_error(NotPermitted(), request_id)
        session = self.sessions.find(cookie_of(headers))
        if session is None or await anyio.to_thread.run_sync(self.ring.holder_of_hash, session.key_hash) is None:
            return RedirectResponse("/login", status_code=303)
        return _enter(scope, headers, session, request_id)


def _enter(scope: Scope, headers: Headers, session: Session, request_id: str) -> Response | None:
    if scope["method"] not in ("GET", "HEAD") and not same_origin(headers):
        return _refuse(
            403, "origin_refused", "The form was sent from another site.", "open the console and press the button there", request_id
        )
    scope["state"]["caller"], scope["state"]["session"] = session.name, session
    return None


def cookie_of(headers: Mapping[str, str]) -> str:
    """The session token that a browser sent; empty when there is none."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a form came from a page of this server. A browser names the origin of every POST; a tool may leave it out."""
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reachable from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("my.host")
    (True, True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class _Reply:
    """``send`` that adds the headers every answer carries, and remembers whether it began."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._request_id, self.begun = send, request_id, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers["x-request-id"] = self._request_id
        await self._send(message)


class _Replay:
    """``receive`` that gives the body that was read, once, and then what the server says."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body, self._receive, self._given = body, receive, False

    async def __call__(self) -> Message:
        if self._given:
            return await self._receive()
        self._given = True
        return {"type": "http.request", "body": self._body, "more_body": False}


async def _bounded_body(receive: Receive, headers: Headers, limit: int) -> bytes | None:
    """The whole body; None as soon as it is known to be larger than the limit."""
    declared = headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > limit:
        return None
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


async def _answer(response: Response, scope: Scope, receive: Receive, reply: _Reply, error: Exception) -> None:
    if reply.begun:
        raise error
    await response(scope, receive, reply)


def _limit(path: str) -> int:
    return DATASET_LIMIT if DATASET_PATH.fullmatch(path) else BODY_LIMIT


def _too_large(request_id: str, limit: int) -> Response:
    return _refuse(413, "body_too_large", f"The body is larger than {limit >> 20} MiB.", "send it in smaller parts", request_id)


@functools.lru_cache(maxsize=256)
def _host_allowed(host: str, allowed: frozenset[str]) -> bool:
    name = host if host.endswith("]") else re.sub(r":\d+$", "", host)
    return name.lower() in allowed


def _is_local(scope: Scope) -> bool:
    client = scope.get("client")
    return client is not None and is_loopback(client[0])


def _refuse(status: int, code: str, detail: str, mend: str, request_id: str) -> Response:
    return failures.problem(status, code=code, detail=detail, mend=mend, request_id=request_id)
