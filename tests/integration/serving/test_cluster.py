"""A gateway on a node of a Ray cluster that others run: it uses the application that `serve deploy` put there, and changes nothing."""

from __future__ import annotations

import json
import secrets
import signal
from collections.abc import Iterator

import pytest

from .stack import Stack, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A head started by hand, without any application, and a gateway that was told its address."""
    with pytest.MonkeyPatch.context() as environment, Stack(tmp_path_factory.mktemp("cluster"), cluster=True, deadline_s=60.0) as stack:
        environment.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        stack.start_cluster()
        stack.start_gateway()
        yield stack


def why(stack: Stack) -> str:
    """Why the gateway is not ready; empty when it is, or when it does not listen yet."""
    status, body = stack.get("/readyz")
    return str(json.loads(body)["detail"]) if status == 503 else ""


def deployed(stack: Stack) -> bool:
    """The head's dashboard takes a few seconds until it takes deployments."""
    return stack.get("/api/version", port=stack.settings.ports.ray_dashboard)[0] in (200, 401) and bool(stack.serve_deploy(1))


def test_without_the_application_it_says_what_to_do_and_deploys_nothing(cluster: Stack) -> None:
    wait_for(lambda: "serve deploy" in why(cluster), "it says that there is no application", 180)
    assert cluster.replica_pids() == []


def test_it_answers_by_the_application_that_serve_deploy_put_there(cluster: Stack) -> None:
    wait_for(lambda: deployed(cluster), "serve deploy is accepted", 120)
    wait_for(cluster.ready, "the gateway is ready", 120)
    cluster.assign("tickets", "sha256:first")
    wait_for(lambda: cluster.predict("tickets", "hello")[0] == 200, "the route is followed")
    assert cluster.predict("tickets", "hello")[1]["adapter_digest"] == "sha256:first"
    assert not (cluster.settings.folder / "run" / "ray.token").exists(), "it has no head of its own"


def test_it_ends_and_comes_back_without_any_replica_being_touched(cluster: Stack) -> None:
    before = cluster.replica_pids()
    cluster.end("gateway", signal.SIGTERM)
    cluster.start_gateway()
    wait_for(cluster.ready, "the gateway is ready again", 120)
    assert cluster.predict("tickets", "hello")[0] == 200
    assert cluster.replica_pids() == before


def test_it_joins_the_next_head_at_the_same_address(cluster: Stack) -> None:
    before = set(cluster.replica_pids())
    cluster.end("ray", signal.SIGKILL)
    wait_for(lambda: not cluster.ready(), "it says that no replica answers")
    cluster.start_cluster()
    wait_for(lambda: deployed(cluster), "serve deploy is accepted", 120)
    wait_for(cluster.ready, "the gateway is ready again", 180)
    assert cluster.predict("tickets", "hello")[0] == 200
    assert not before & set(cluster.replica_pids())
