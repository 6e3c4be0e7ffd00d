"""The app: the guard in front, the REST routes under ``/api/v1``, the console pages, and health."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI
from fastapi.staticfiles import StaticFiles

from holdfast import __version__
from holdfast.api import (
    alerts,
    assignments,
    budget,
    captures,
    datasets,
    failures,
    health,
    keys,
    labels,
    ledger,
    monitors,
    promotions,
    reports,
    retrainings,
    reviews,
    tasks,
    trials,
    verdicts,
    versions,
)
from holdfast.api.console import entrance, fleet, forms, review_page, task_page
from holdfast.api.console.render import error_page
from holdfast.api.console.sessions import Sessions
from holdfast.api.dependencies import bearer
from holdfast.api.keys import KeyRing
from holdfast.api.protection import LOOPBACK_NAMES, Guard
from holdfast.ports import House
from holdfast.settings import Settings

PREFIX = "/api/v1"
RESOURCES = (
    tasks,
    datasets,
    versions,
    retrainings,
    verdicts,
    promotions,
    trials,
    assignments,
    labels,
    captures,
    monitors,
    budget,
    reports,
    alerts,
    reviews,
    ledger,
    keys,
)
STATIC = Path(__file__).parent / "console" / "static"
DESCRIPTION = """The control plane of Holdfast. Every route needs `Authorization: Bearer KEY`. Errors are RFC 9457 problems with a stable
`code`, a `detail` that says what is wrong and where, a `mend` that says what to do next, and a `request_id`."""


def build(house: House, settings: Settings) -> FastAPI:
    """The app over a house. It starts nothing and reads nothing before the first request."""
    app = FastAPI(
        title="Holdfast",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # Swagger's page loads scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,
        responses=failures.documented(401, 422, 503),
    )
    app.state.house, app.state.settings = house, settings
    app.state.ring, app.state.sessions = KeyRing(house.unit_of_work), Sessions()
    failures.install(app, error_page)
    routes = APIRouter(prefix=PREFIX, dependencies=[Depends(bearer)])
    for resource in RESOURCES:
        routes.include_router(resource.router)
    app.include_router(routes)
    app.include_router(health.router)
    for page in (entrance, fleet, task_page, review_page, forms):
        app.include_router(page.router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(Guard, ring=app.state.ring, sessions=app.state.sessions, hosts={*LOOPBACK_NAMES, settings.host.lower()})
    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """Add the one problem shape to the OpenAPI components, which routes refer to."""
    plain = app.openapi

    def described() -> dict[str, object]:
        schema = plain()
        models = failures.ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
        parts = {**models.pop("$defs"), "ProblemBody": models}
        schema.setdefault("components", {}).setdefault("schemas", {}).update(parts)
        return schema

    app.openapi = described  # type: ignore[method-assign]
