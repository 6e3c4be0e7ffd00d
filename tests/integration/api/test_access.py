"""Who gets in, and what the guard refuses before any handler runs."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.routing import Mount

from holdfast.api import keys
from holdfast.api.__main__ import FLAG, check_host
from holdfast.api.app import build
from holdfast.api.keys import KeyRing, ensure_admin_key, hash_of, new_key
from holdfast.api.protection import BODY_LIMIT, DATASET_LIMIT, OPEN
from holdfast.errors import RequestInvalid
from holdfast.settings import Settings


def routes_of(app: Any) -> Iterator[tuple[str, str]]:
    """Every method and path that the app answers, included routers and mounts with them."""
    pending = [(route, "") for route in app.router.routes]
    while pending:
        route, prefix = pending.pop()
        inner = getattr(route, "original_router", None)
        if inner is not None:
            pending += [(r, prefix + getattr(route.include_context, "prefix", "")) for r in inner.routes]
        elif isinstance(route, APIRoute):
            yield from ((method, prefix + route.path) for method in route.methods or ())
        elif isinstance(route, Mount):
            yield "GET", f"{prefix}{route.path}/nothing"
        else:
            yield from ((method, prefix + route.path) for method in getattr(route, "methods", None) or {"GET"})


def test_every_route_that_is_not_declared_open_refuses_a_caller_without_a_key(place: Any) -> None:
    nobody, seen = place.client(""), []
    for method, path in routes_of(place.app):
        if path in OPEN or path.startswith("/static"):
            continue
        answer = nobody.request(method, path.replace("{", "").replace("}", ""))
        seen.append(path)
        if path.startswith("/api/"):
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
        else:
            assert (answer.status_code, answer.headers["location"]) == (303, "/login"), path
    assert len(seen) >= 30
    assert "/api/v1/openapi.json" in seen
    assert "/api/v1/tasks/{task}/promotions" in seen
    assert "/tasks/{task}/promote" in seen


def test_the_open_paths_are_these_and_no_more() -> None:
    assert {"/healthz", "/readyz", "/login", "/metrics"} == OPEN


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer hf_wrong", "Basic YTpi", "bearer  "])
def test_a_wrong_key_gets_a_problem_with_its_mend(place: Any, header: str) -> None:
    answer = place.client("").get("/api/v1/tasks", headers={"authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not_permitted"
    assert "Bearer" in answer.json()["mend"]
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_session_cookie_opens_no_rest_route(place: Any) -> None:
    browser = place.browser()
    assert browser.get("/").status_code == 200
    assert browser.get("/api/v1/tasks").status_code == 401


def test_a_revoked_key_is_refused_at_once_and_its_session_ends(place: Any) -> None:
    admin = place.client()
    made = admin.post("/api/v1/keys", json={"name": "ci"}).json()
    ci, browser = place.client(made["key"]), place.client("")
    assert browser.post("/login", data={"key": made["key"]}).status_code == 303
    assert ci.get("/api/v1/keys").json() == [{"name": "admin"}, {"name": "ci"}]
    assert admin.delete("/api/v1/keys/ci").status_code == 204
    assert ci.get("/api/v1/keys").status_code == 401
    assert browser.get("/").headers["location"] == "/login"


def test_the_key_ring_asks_the_database_again_after_a_second(place: Any) -> None:
    now = [0.0]
    ring = KeyRing(place.house.unit_of_work, monotonic=lambda: now[0])
    key = new_key()
    assert ring.holder(key) is None
    with place.house.unit_of_work() as work:
        work.keys.add(name="late", key_hash=hash_of(key), created_at=place.clock())
        work.commit()
    now[0] = keys.FRESH_S - 0.01
    assert ring.holder(key) is None
    now[0] = keys.FRESH_S
    found = ring.holder(key)
    assert found is not None
    assert found.name == "late"


def test_the_first_key_lies_in_a_private_file_and_is_made_once(place: Any) -> None:
    path: Path = place.folder / "keys" / "admin.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    before = path.read_text()
    assert len(before.strip()) == 46
    assert ensure_admin_key(place.house, path.parent).read_text() == before
    with place.house.unit_of_work() as work:
        assert before.strip() not in str(work.keys.valid())


def test_the_last_key_cannot_be_revoked(admin: TestClient) -> None:
    answer = admin.delete("/api/v1/keys/admin")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "10.0.0.7:8600", "localhost@evil"])
def test_a_host_header_of_another_name_is_refused(place: Any, host: str) -> None:
    answer = place.client().get("/healthz", headers={"host": host})
    assert (answer.status_code, answer.json()["code"]) == (421, "host_refused")


@pytest.mark.parametrize("host", ["localhost", "localhost:8600", "127.0.0.1", "[::1]:8600", "[::1]", "LOCALHOST"])
def test_loopback_names_are_answered(place: Any, host: str) -> None:
    assert place.client().get("/healthz", headers={"host": host}).status_code == 200


def test_a_body_over_the_limit_is_refused_before_it_is_parsed(place: Any) -> None:
    client = place.client()
    over = client.post("/api/v1/tasks", content=b"x" * (BODY_LIMIT + 1))
    assert (over.status_code, over.json()["code"]) == (413, "body_too_large")
    at = client.post("/api/v1/tasks", content=b"x" * BODY_LIMIT)
    assert at.status_code == 422
    streamed = client.post("/api/v1/tasks", content=(b"x" * (1 << 16) for _ in range(17)))
    assert streamed.status_code == 413
    roomy = client.post("/api/v1/tasks/t/datasets", content=b"x" * (BODY_LIMIT + 1))
    assert roomy.status_code == 422
    declared = client.post("/api/v1/tasks/t/datasets", content=b"x", headers={"content-length": str(DATASET_LIMIT + 1)})
    assert declared.status_code == 413


def test_a_compressed_body_is_refused(place: Any) -> None:
    answer = place.client().post("/api/v1/tasks", content=b"x", headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["code"]) == (415, "encoding_refused")


def test_every_answer_carries_the_security_headers_and_none_allows_another_origin(fleet: Any) -> None:
    answers = [
        fleet.client().get("/api/v1/tasks", headers={"origin": "https://evil.example"}),
        fleet.client("").get("/api/v1/tasks"),
        fleet.browser().get("/"),
        fleet.client("").get("/static/console.css"),
    ]
    for answer in answers:
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_metrics_answer_loopback_alone(fleet: Any) -> None:
    near = fleet.client("").get("/metrics")
    assert 'holdfast_captures_stored_total{task="tickets"} 800' in near.text
    far = TestClient(fleet.app, base_url="http://127.0.0.1:8600", client=("10.0.0.7", 5)).get("/metrics")
    assert far.status_code == 401


def test_an_error_nobody_planned_tells_nothing_of_its_inside(tmp_path: Path, place: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = build(place.house, Settings(home=tmp_path))

    @app.get("/api/v1/broken")
    def broken() -> None:
        raise RuntimeError("SELECT secret FROM /etc/passwd")

    client = TestClient(
        app, base_url="http://localhost", headers={"authorization": f"Bearer {place.key}", "x-request-id": "req_from_caller"}
    )
    answer = client.get("/api/v1/broken")
    assert (answer.status_code, answer.json()["code"], answer.json()["request_id"]) == (500, "internal", "req_from_caller")
    assert "SELECT" not in answer.text
    assert "Traceback" not in answer.text
    assert "req_from_caller" in caplog.text


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "tickets%00", "a" * 400, "%E2%80%AE", "tickets%2f..%2f..%2fkeys"])
def test_a_name_that_is_a_path_names_nothing(fleet: Any, name: str) -> None:
    for route in ("/api/v1/tasks/{}", "/api/v1/tasks/{}/versions", "/api/v1/verdicts/{}", "/tasks/{}", "/tasks/tickets/reports/{}"):
        assert fleet.client().get(route.format(name)).status_code in (404, 422)


def test_an_address_beyond_loopback_needs_the_flag() -> None:
    with pytest.raises(RequestInvalid, match=r"HOLDFAST_HOST.*0\.0\.0\.0"):
        check_host(Settings(host="0.0.0.0"), [])
    check_host(Settings(host="0.0.0.0"), [FLAG])
    check_host(Settings(host="127.0.0.1"), [])
