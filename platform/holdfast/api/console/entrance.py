"""The door of the console: sign in with an API key, sign out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from holdfast.api.console.render import page
from holdfast.api.console.sessions import COOKIE, LIFE_S, csrf_valid
from holdfast.api.keys import KeyRing

router = APIRouter()


@router.get("/login")
def show_login(request: Request) -> HTMLResponse:
    """The form."""
    return page("login.html", request, wrong=False)


@router.post("/login")
def sign_in(request: Request, key: Annotated[str, Form(max_length=200)] = "") -> Response:
    """A valid key begins a session; its cookie is never readable by a script and never sent from another site."""
    ring: KeyRing = request.app.state.ring
    holder = ring.holder(key.strip())
    if holder is None:
        return page("login.html", request, status=401, wrong=True)
    token = request.app.state.sessions.begin(name=holder.name, key_hash=holder.key_hash)
    response = RedirectResponse("/", status_code=303)
    response.set_cookie(
        COOKIE, token, max_age=int(LIFE_S), httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/"
    )
    return response


@router.post("/logout")
def sign_out(request: Request, csrf: Annotated[str, Form()] = "") -> Response:
    """Ends the session."""
    session = request.state.session
    if session is not None and csrf_valid(session, csrf):
        request.app.state.sessions.end(request.cookies.get(COOKIE, ""))
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(COOKIE, path="/")
    return response
