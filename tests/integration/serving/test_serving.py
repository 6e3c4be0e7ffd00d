"""The real data plane: Ray, Serve, the gateway process and the database, with faults."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from .clients import Clients
from .stack import Stack, running, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
FIRST, SECOND = "sha256:first", "sha256:second"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("home"), deadline_s=60.0, spool_segment_rows=50) as stack:
        stack.assign("tickets", FIRST)
        wait_for(lambda: stack.predict("tickets", "ready?")[0] == 200, "the first route is followed")
        yield stack


def stored(stack: Stack, prefix: str) -> Counter[str]:
    """Ids of stored captures that begin so, and how often each is stored."""
    assert stack.database is not None
    log, seq, found = stack.database.log(), 0, Counter[str]()
    while page := log.after("tickets", seq, 5_000):  # type: ignore[arg-type]
        found.update(c.capture_id for c in page if c.capture_id.startswith(prefix))
        seq = page[-1].seq
    return found


def all_stored(stack: Stack, clients: Clients) -> bool:
    found = stored(stack, clients.name)
    return set(clients.ids) <= set(found) and max(found.values()) == 1


def test_a_swap_under_load_fails_nothing_and_is_followed_without_anybody_being_told(stack: Stack) -> None:
    with Clients(stack, "swap") as clients:
        wait_for(lambda: clients.statuses[200] > 20, "traffic flows")
        stack.assign("tickets", SECOND)
        changed = time.monotonic()
        wait_for(lambda: any(digest == SECOND for _, digest in clients.answers), "the second version answers")
        stack.assign("tickets", FIRST)
        wait_for(lambda: sum(digest == FIRST for sent, digest in clients.answers if sent > changed + 1.5) > 20, "the first answers again")
    assert set(clients.statuses) == {200}
    assert clients.wrong == 0
    wait_for(lambda: all_stored(stack, clients), "every acknowledged capture is stored once")


def test_kill_9_of_the_only_replica_under_load_fails_no_request(stack: Stack) -> None:
    before = set(stack.replica_pids())
    with Clients(stack, "kill") as clients:
        wait_for(lambda: clients.statuses[200] > 20, "traffic flows")
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: bool(set(stack.replica_pids()) - before), "a new replica runs")
        answered = clients.statuses[200]
        wait_for(lambda: clients.statuses[200] > answered + 20, "traffic flows again")
    assert set(clients.statuses) == {200}
    assert clients.wrong == 0
    wait_for(lambda: all_stored(stack, clients), "every acknowledged capture is stored once")


def test_a_version_that_cannot_be_loaded_is_reported_and_the_published_one_goes_on(stack: Stack) -> None:
    assert stack.database is not None
    stack.assign("tickets", "sha256:bad", publish=False)

    def refused() -> bool:
        assert stack.database is not None
        with stack.database.unit_of_work() as work:
            reports = work.replicas.live(stack_start())
        return any("sha256:bad" in report.refused for report in reports)

    wait_for(refused, "the replica says that it cannot load it")
    status, body = stack.predict("tickets", "still there?")
    assert (status, body["adapter_digest"]) == (200, FIRST)
    stack.assign("tickets", FIRST)


def test_kill_9_of_the_gateway_loses_no_acknowledged_capture(stack: Stack) -> None:
    with Clients(stack, "gateway", count=2) as clients:
        wait_for(lambda: clients.statuses[200] > 50, "traffic flows")
        stack.end("gateway", signal.SIGKILL)
        stack.start_gateway()
        answered = clients.statuses[200]
        wait_for(lambda: clients.statuses[200] > answered + 20, "traffic flows again")
    assert set(clients.statuses) <= {0, 200, 401, 404}  # while it is down nobody listens; a fresh one has read no table yet
    wait_for(lambda: all_stored(stack, clients), "every acknowledged capture is stored once")


def test_a_label_is_taken_right_after_its_answer_and_outlives_kill_9_of_the_gateway(stack: Stack) -> None:
    assert stack.database is not None
    log, before = stack.database.log(), stack.database.log().label_count("tickets")  # type: ignore[arg-type]
    for number in range(20):
        assert stack.predict("tickets", f"text {number}", f"label-{number}")[0] == 200
        assert stack.post("/v1/feedback", {"request_id": f"label-{number}", "label": "billing"})[0] == 202
    stack.end("gateway", signal.SIGKILL)
    stack.start_gateway()
    wait_for(stack.ready, "the gateway is ready again")
    wait_for(lambda: log.label_count("tickets") == before + 20, "every acknowledged label is stored once")  # type: ignore[arg-type]


def test_kill_9_of_the_whole_ray_head_leaves_http_up_and_is_joined_again(stack: Stack) -> None:
    gateway = stack.processes["gateway"].pid
    stack.end("ray", signal.SIGKILL)
    wait_for(lambda: stack.get("/readyz")[0] == 503, "the gateway says that it is not ready")
    assert stack.get("/healthz")[0] == 200
    stack.start_ray()
    wait_for(stack.ready, "the gateway is ready again", 120)
    status, body = stack.predict("tickets", "back?")
    assert (status, body["adapter_digest"]) == (200, FIRST)
    assert stack.processes["gateway"].pid == gateway
    assert stack.processes["gateway"].poll() is None


def test_the_jobs_api_asks_for_the_token_and_only_loopback_is_told_of(stack: Stack) -> None:

    url = f"http://127.0.0.1:{stack.settings.ports.ray_dashboard}/api/jobs/"
    token = stack.settings.folder / "run" / "ray.token"
    assert token.stat().st_mode & 0o777 == 0o600
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, timeout=10)
    assert refused.value.code == 401
    refused.value.close()
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token.read_text()}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def stack_start() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=30)


def test_sigterm_brings_the_captures_home_and_ends_the_gateway_in_good_order(stack: Stack) -> None:
    with Clients(stack, "term", count=1) as clients:
        wait_for(lambda: clients.statuses[200] > 20, "traffic flows")
    process = stack.processes["gateway"]
    process.terminate()
    assert process.wait(30) in (0, -signal.SIGTERM)
    assert "*** SIGTERM" not in stack.log("gateway")
    assert list((stack.settings.folder / "spool").glob("*.jsonl")) == []
    assert all_stored(stack, clients)
    stack.end("gateway", signal.SIGTERM)
    stack.start_gateway()
    wait_for(stack.ready, "the gateway is ready again")
