"""A house of twins, the app over it, and a fleet in every state."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.api.app import build
from holdfast.api.console.sessions import COOKIE
from holdfast.api.keys import ensure_admin_key, hash_of
from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.alerts import Alert
from holdfast.domain.captures import Capture, Label, Prediction
from holdfast.domain.datasets import LeftOut, SuspectedRow, TaughtRows
from holdfast.domain.diagnosis import Diagnosis
from holdfast.domain.gates import CriterionResult
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.domain.monitors import MonitorReading, MonitorStatus
from holdfast.domain.records import digest_of
from holdfast.domain.tasks import PromotionPolicy
from holdfast.ports import House
from holdfast.settings import Settings
from holdfast.testing.builders import a_house
from holdfast.testing.clock import NOON, SteppedClock
from holdfast.testing.record_builders import (
    LABELS,
    a_contract,
    a_digest,
    a_monitor_set,
    a_promotion,
    a_replica_report,
    a_report,
    a_retraining,
    a_route,
    a_snapshot,
    a_snapshot_row,
    a_verdict,
    a_version,
    an_alert,
    an_assignment,
)

HOSTILE = "<script>alert('x')</script> where is my parcel & invoice?"


@dataclass
class Place:
    """What a test works with."""

    house: House
    clock: SteppedClock
    app: FastAPI
    settings: Settings
    key: str
    folder: Path

    def client(self, key: str | None = None) -> TestClient:
        """A caller with a key (the admin's when none is given; empty for none)."""
        given = self.key if key is None else key
        headers = {"Authorization": f"Bearer {given}"} if given else {}
        return TestClient(self.app, base_url="http://127.0.0.1:8600", headers=headers, follow_redirects=False, client=("127.0.0.1", 5))

    def browser(self) -> TestClient:
        """A signed-in browser."""
        client = self.client("")
        client.headers["accept"] = "text/html"
        assert client.post("/login", data={"key": self.key}).status_code == 303
        return client


def a_place(folder: Path, **settings: object) -> Place:
    """A fresh house with its first key."""
    clock = SteppedClock()
    house = a_house(clock=clock)
    chosen = Settings(home=folder, **settings)  # type: ignore[arg-type]
    key = ensure_admin_key(house, folder / "keys").read_text().strip()
    return Place(house, clock, build(house, chosen), chosen, key, folder)


def seed_fleet(place: Place) -> None:
    """Three tasks: `tickets` drifted and waits for a person, `intents` retrains, `quiet` is healthy; and an empty `fresh`."""
    _seed_drifted(place)
    _seed_healing(place)
    _seed_healthy(place)
    with place.house.unit_of_work() as work:
        work.contracts.put(a_contract(task=TaskName("fresh"), floor=0.9), NOON)
        work.replicas.report(a_replica_report(reported_at=NOON + timedelta(minutes=29, seconds=58)))
        work.commit()
    place.clock.step(1800)


def _traffic(place: Place, task: str, rows: int, share_wrong: list[float], version: AdapterVersion) -> None:
    captures, labels = [], []
    for n in range(rows):
        at = NOON + timedelta(seconds=1790 * (n + 1) / rows)
        wrong = (n * 37 % 100) / 100 < share_wrong[n * len(share_wrong) // rows]
        text = HOSTILE if n == rows - 2 else f"parcel {n} has not come, where does it stay?"
        capture = Capture(
            capture_id=CaptureId(f"{task}-{n}"), task=TaskName(task), text=text, adapter_digest=version.digest,
            prediction=Prediction(label=LABELS[n % 3], confidence=0.6 + (n % 40) / 100), generation=1, route="champion",
            captured_at=at, latency_ms=6.0, embedding=np.ones(4, dtype=np.float16),
        )  # fmt: skip
        captures.append(capture)
        if n % 2 == 0 and n < rows - 5:
            right = LABELS[(n + 1) % 3] if wrong else LABELS[n % 3]
            labels.append(Label(capture_id=capture.capture_id, task=TaskName(task), value=right, source="agents", labelled_at=at))
    place.house.log.append(captures)
    place.house.log.label(labels)


def _readings(evidence: float) -> tuple[MonitorReading, ...]:
    status: MonitorStatus = "alarm" if evidence >= 13.8 else "watching" if evidence > 6 else "quiet"
    made = [
        MonitorReading(
            monitor="quality",
            status=status,
            log_evidence=evidence,
            log_threshold=13.8,
            event_count=400,
            onset_seq=410 if evidence > 6 else 0,
            detail={"smallest_rise": 0.043},
            note="would have found a rise of errors by 4.3 points",
        ),
        MonitorReading(monitor="embedding", status="quiet", log_evidence=1.2, log_threshold=13.8, event_count=800, onset_seq=0),
        MonitorReading(monitor="label_mix", status="quiet", log_evidence=0.3, log_threshold=13.8, event_count=800, onset_seq=0),
        MonitorReading(monitor="confidence", status="not enough data", log_evidence=0.0, log_threshold=13.8, event_count=9, onset_seq=0),
    ]
    return tuple(made)


def _seed_drifted(place: Place) -> None:
    """A suggest-only task: v1 answers, an alert is open, and v2 passed its gate."""
    first, second, beside = (
        a_version(digest=a_digest(n), number=i + 1, rung=r) for i, (n, r) in enumerate([("t1", "lora"), ("t2", "lora"), ("t3", "head")])
    )
    contract = a_contract(promotion=PromotionPolicy(mode="suggest"), description="Route support tickets to the right desk.")
    alert = _concept_change(first)
    verdict = a_verdict(candidate=second.digest, champion=first.digest, criteria=PASSED, policy_digest=digest_of(contract))
    rows = [a_snapshot_row(n) for n in range(20)]
    run = a_retraining(
        requested_at=NOON + timedelta(minutes=21), due_at=NOON + timedelta(minutes=31),
        alert_id=alert.alert_id, reason=f"alert {alert.alert_id}", state="judged",
        candidate_digest=second.digest, beside_digest=beside.digest, labels_used=214, train_seconds=74.0, attempt=1, progress=1.0,
        verdict_id=verdict.verdict_id, champion_digest=first.digest, requested_by="loop", snapshot_digest=a_snapshot(rows).digest,
    )  # fmt: skip
    doubt = SuspectedRow(row_id=1, text=HOSTILE, label=LABELS[0], source="desk", suggested=LABELS[1], margin=0.9)
    data = a_snapshot(rows, left_out=LeftOut(capped_by_source={"robot": 40}), taught=TaughtRows(taught_count=17, suspected=(doubt,)))
    monitors = a_monitor_set(
        adapter_digest=first.digest, readings=_readings(17.2), capture_cursor=800, updated_at=NOON + timedelta(minutes=29)
    )
    with place.house.unit_of_work() as work:
        work.contracts.put(contract, NOON)
        for version in (first, second, beside):
            work.versions.put(version)
        work.assignments.next_generation()
        work.assignments.put(an_assignment(champion=first.digest), expected_generation=None)
        work.assignments.publish(a_route(champion=first.digest))
        work.monitors.put(monitors)
        work.alerts.put(alert)
        work.verdicts.put(verdict)
        work.snapshots.put(data)
        work.retrainings.request(run)
        work.promotions.put(a_promotion(digest=first.digest, live_at=NOON + timedelta(minutes=2)))
        work.reports.put(a_report(adapter_digest=first.digest))
        work.ledger.append(at=NOON, kind="alert.opened", task="tickets", actor="loop", body={"alert": alert.alert_id})
        work.commit()
    _traffic(place, "tickets", 800, [0.06, 0.08, 0.1, 0.4, 0.45], first)
    (place.folder / "reports").mkdir(parents=True, exist_ok=True)
    (place.folder / "reports" / "1.html").write_text("<!doctype html><h1>Drift</h1><script>document.title='ran'</script>")


def _concept_change(version: AdapterVersion) -> Alert:
    sentence = "41 % of answers are wrong now (8 % before), while the inputs look as they did: the meaning of 'delivery' changed."
    evidence = {"share_wrong": 0.41, "share_wrong_before": 0.08}
    return an_alert(
        opened_at=NOON + timedelta(minutes=20), adapter_digest=version.digest, event_seq=612, onset_seq=410,
        diagnosis=Diagnosis(cause="concept change", action="retrain", evidence=evidence, sentence=sentence),
    )  # fmt: skip


PASSED = (
    CriterionResult(
        name="better_on_recent", outcome="pass", observed=0.31, lower=0.18, upper=0.43, threshold=0.0, row_count=90,
        reason="right on 31 % more of the recent rows",
    ),
    CriterionResult(
        name="no_loss_on_past", outcome="pass", observed=-0.004, lower=-0.03, upper=0.02, threshold=-0.05, row_count=240,
        reason="loses at most 3 % of the past rows",
    ),
)  # fmt: skip


def _seed_healing(place: Place) -> None:
    name = TaskName("intents")
    first = a_version(digest=a_digest("i1"), task=name)
    alert = an_alert(2, task=name, opened_at=NOON + timedelta(minutes=25), adapter_digest=first.digest)
    with place.house.unit_of_work() as work:
        work.contracts.put(a_contract(task=name), NOON)
        work.versions.put(first)
        generation = work.assignments.next_generation()
        work.assignments.put(an_assignment(task=name, champion=first.digest, generation=generation), expected_generation=None)
        work.assignments.publish(a_route(task=name, champion=first.digest, generation=generation))
        work.monitors.put(a_monitor_set(task=name, adapter_digest=first.digest, readings=_readings(15.0), capture_cursor=10_000))
        work.alerts.put(alert)
        work.retrainings.request(
            a_retraining(2, task=name, state="training", progress=0.62, alert_id=alert.alert_id, requested_at=NOON + timedelta(minutes=27),
                         due_at=NOON + timedelta(minutes=30), attempt=1)
        )  # fmt: skip
        work.commit()
    _traffic(place, "intents", 300, [0.1, 0.3], first)


def _seed_healthy(place: Place) -> None:
    name = TaskName("quiet")
    first, before = a_version(digest=a_digest("q2"), task=name, number=2, registry_version="2"), a_version(digest=a_digest("q1"), task=name)
    with place.house.unit_of_work() as work:
        work.contracts.put(a_contract(task=name), NOON)
        work.versions.put(before)
        work.versions.put(first)
        generation = work.assignments.next_generation()
        work.assignments.put(
            an_assignment(task=name, champion=first.digest, previous=before.digest, generation=generation), expected_generation=None
        )
        work.assignments.publish(a_route(task=name, champion=first.digest, generation=generation))
        work.monitors.put(a_monitor_set(task=name, adapter_digest=first.digest, readings=_readings(0.4), capture_cursor=10_000))
        work.snapshots.put(a_snapshot(task=name))
        work.commit()
    _traffic(place, "quiet", 600, [0.04], first)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty house."""
    return a_place(tmp_path)


@pytest.fixture
def fleet(tmp_path: Path) -> Place:
    """A house with a fleet."""
    made = a_place(tmp_path)
    seed_fleet(made)
    return made


@pytest.fixture
def admin(place: Place) -> Iterator[TestClient]:
    """A caller with the first key."""
    with place.client() as client:
        yield client


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The app behind a real server on a free port of loopback; gives its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture
def fleet_url(fleet: Place) -> Iterator[str]:
    """The fleet behind a real server."""
    with serving(fleet.app) as url:
        yield url


@contextmanager
def _signed_in(place: Place) -> Iterator[str]:
    """A place behind a real server that takes every visitor for the admin's browser: a headless Chromium has no cookie."""
    token = place.app.state.sessions.begin(name="admin", key_hash=hash_of(place.key))

    async def with_cookie(scope: Scope, receive: Receive, send: Send) -> None:
        cookie = (b"cookie", f"{COOKIE}={token}".encode())
        await place.app({**scope, "headers": [*scope["headers"], cookie]}, receive, send)

    with serving(with_cookie) as url:
        yield url


@pytest.fixture
def signed_in() -> Callable[[Place], AbstractContextManager[str]]:
    """Serves a place to a signed-in browser; gives its URL."""
    return _signed_in


@pytest.fixture
def signed_in_url(fleet: Place) -> Iterator[str]:
    """The fleet behind a real server, for a signed-in browser."""
    with _signed_in(fleet) as url:
        yield url
