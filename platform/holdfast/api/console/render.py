"""Templates to pages: everything that comes from outside is escaped, and an undefined name is an error."""

from __future__ import annotations

import functools
import re
from datetime import datetime

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from holdfast.api.console.sessions import Session
from holdfast.api.failures import status_of
from holdfast.api.series import RecentScore
from holdfast.api.standing import duration, sentence
from holdfast.domain.answers import labels_in
from holdfast.domain.answers import show as show_answer
from holdfast.domain.labelling import natural
from holdfast.errors import HoldfastError

ICONS = {"needs you": "▲", "healing": "↻", "at risk": "◆", "starting": "▷", "healthy": "●", "unknown": "?"}
"""A shape for each state, so that none is told by colour alone."""
OUTCOMES = {"pass": "✓ pass", "fail": "✗ fail", "need more": "… need more"}


@functools.cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("holdfast.api.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        {
            "when": when,
            "percent": percent,
            "score": score_words,
            "digest": short_digest,
            "slug": slug,
            "number": number,
            "span": duration,
            "sentence": sentence,
            "commands": commands,
            "answer": show_answer,
            "labels": labels_in,
            "natural": natural,
        }
    )
    made.globals.update({"icons": ICONS, "outcomes": OUTCOMES})
    return made


def page(name: str, request: Request, *, status: int = 200, **context: object) -> HTMLResponse:
    """One page. The template sees the session (for its CSRF token) besides the given values."""
    session = getattr(request.state, "session", None)
    assert session is None or isinstance(session, Session)
    settings = request.app.state.settings
    text = (
        _templates()
        .get_template(name)
        .render(
            session=session,
            mlflow_url=settings.local(settings.ports.mlflow),
            evidently_url=settings.local(settings.ports.evidently),
            now=request.app.state.house.clock(),
            **context,
        )
    )
    return HTMLResponse(text, status_code=status)


def error_page(request: Request, error: HoldfastError) -> HTMLResponse | None:
    """The page of an error, for a browser that asked for a page of the console; None for everybody else."""
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        return None
    return page("error.html", request, status=status_of(error), error=error, request_id=request.state.request_id)


def when(at: datetime | None) -> str:
    """An instant, UTC."""
    return "–" if at is None else f"{at:%d %b %H:%M:%S}"


def percent(share: float | None, digits: int = 0) -> str:
    """A share in words; unknown is never shown as zero."""
    return "unknown" if share is None else f"{share:.{digits}%}"


def score_words(score: RecentScore | None) -> str:
    """A score with its interval.

    >>> score_words(RecentScore(value=0.913, lower=0.86, upper=0.95, row_count=120))
    '91% (86 to 95%)'
    >>> score_words(None)
    'unknown'
    """
    if score is None:
        return "unknown"
    return f"{100 * score.value:.0f}% ({100 * score.lower:.0f} to {100 * score.upper:.0f}%)"


def short_digest(digest: str | None) -> str:
    """The first twelve digits of a digest."""
    return "–" if not digest else digest.removeprefix("sha256:")[:12]


def commands(text: str) -> Markup:
    """A text in which the words between backticks, which are commands, are set as such.

    >>> commands("run `holdfast up` & look")
    Markup('run <code>holdfast up</code> &amp; look')
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def slug(text: str) -> str:
    """A word that can be the name of a style class."""
    return text.lower().replace(" ", "-")


def number(value: float | None) -> str:
    """A figure of the gate, signed as needed, or a dash.

    >>> number(0.91234), number(None), number(120.0)
    ('0.912', '–', '120')
    """
    if value is None:
        return "–"
    return f"{value:.0f}" if value == int(value) and abs(value) >= 2 else f"{value:.3f}"
