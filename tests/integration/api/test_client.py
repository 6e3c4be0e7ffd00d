"""The client against the real app behind a real server."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from holdfast.client import Client
from holdfast.errors import (
    ContractInvalid,
    DataInvalid,
    GateRefused,
    HoldfastError,
    NotFound,
    NotPermitted,
    PartUnavailable,
    StaleGeneration,
)


@pytest.fixture
def client(fleet: Any, fleet_url: str) -> Iterator[Client]:
    """The admin's client."""
    with Client(fleet_url, fleet_url, fleet.key) as made:
        yield made


def test_the_client_reads_what_the_server_tells(client: Client) -> None:
    assert [t["task"] for t in client.tasks()] == ["fresh", "intents", "quiet", "tickets"]
    assert client.task("tickets")["standing"]["deed"] == "promote"
    assert [v["number"] for v in client.versions("tickets")] == [1, 2, 3]
    retraining = client.retrainings("tickets")[0]
    assert client.retraining(retraining["retraining_id"]) == retraining
    assert client.verdict(retraining["verdict_id"])["outcome"] == "pass"
    assert len(client.captures("tickets", after=0, limit=5)) == 5
    assert len(client.alerts()) == 2
    assert {a["task"] for a in client.assignments()} == {"tickets", "intents", "quiet"}
    assert client.monitors("fresh") == []
    assert client.verify_ledger()["entry_count"] == len(list(client.all_ledger()))
    assert client.api_ready()


def test_the_client_acts(client: Client) -> None:
    wanted = client.retrainings("tickets")[0]["candidate_digest"]
    made = client.promote("tickets", adapter_digest=wanted, reason="it is better", expected_generation=1)
    assert made["kind"] == "promotion"
    assert client.roll_back("tickets", reason="worse", expected_generation=made["generation"])["kind"] == "rollback"
    alert = client.alerts("tickets")[0]
    assert client.answer_alert(alert["alert_id"], "resolve")["state"] == "resolved"
    capture = client.captures("quiet", limit=1)[0]
    assert client.add_labels("quiet", [{"capture_id": capture["capture_id"], "value": "billing"}])["stored_count"] == 1
    key = client.create_key("ci")
    assert key["key"].startswith("hf_")
    client.revoke_key("ci")
    listed = client.keys()
    assert [named["name"] for named in listed] == ["admin"]


def test_problems_come_back_as_the_errors_they_were(client: Client, fleet_url: str) -> None:
    stranger = Client(fleet_url, fleet_url, "hf_wrong")
    cases: list[tuple[type[HoldfastError], Any]] = [
        (NotFound, lambda: client.task("nobody")),
        (NotFound, lambda: client.task("../keys")),
        (NotFound, lambda: client.task("..")),
        (ContractInvalid, lambda: client.create_task({"task": "x"})),
        (DataInvalid, lambda: client.add_dataset("fresh", [{"text": "", "label": "billing"}])),
        (GateRefused, lambda: client.promote("tickets", adapter_digest=client.versions("tickets")[2]["digest"], reason="r")),
        (StaleGeneration, lambda: client.roll_back("quiet", reason="r", expected_generation=900)),
        (NotPermitted, stranger.tasks),
    ]
    for kind, call in cases:
        with pytest.raises(kind) as caught:
            call()
        assert caught.value.code == kind.code
        assert caught.value.message
        assert caught.value.mend
        assert "{" not in str(caught.value)
    stranger.close()


def test_a_server_that_is_not_there_is_told_with_the_command_that_starts_it() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with Client(url, url, "hf_x") as client, pytest.raises(PartUnavailable, match="holdfast up") as caught:
            client.create_task({})
        assert "holdfast up" in caught.value.mend
        with Client(url, url, "hf_x") as client:
            assert not client.api_ready()


def test_reading_is_tried_again_and_writing_is_not() -> None:
    asked: list[str] = []

    def busy(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.method)
        if request.method == "GET" and len(asked) >= 3:
            return httpx2.Response(200, json=[])
        return httpx2.Response(503, json={"code": "part_unavailable", "detail": "away", "mend": "wait"})

    client = Client("http://a", "http://b", "hf_x", transport=httpx2.MockTransport(busy))
    assert client.tasks() == []
    assert asked == ["GET"] * 3
    with pytest.raises(PartUnavailable, match="away"):
        client.create_task({})
    assert asked[3:] == ["POST"]


def test_an_answer_that_is_no_problem_is_still_an_error_of_the_tree() -> None:
    client = Client("http://a", "http://b", "hf_x", transport=httpx2.MockTransport(lambda _: httpx2.Response(418, text="teapot")))
    with pytest.raises(HoldfastError, match="418"):
        client.tasks()


def test_importing_the_client_loads_nothing_heavy() -> None:
    heavy = "torch", "numpy", "fastapi", "pydantic", "sqlalchemy", "mlflow", "ray"
    code = f"import sys, holdfast.client; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_client_begins_and_ends_a_trial(client: Client) -> None:
    wanted = client.retrainings("tickets")[0]["candidate_digest"]
    begun = client.begin_trial("tickets", adapter_digest=wanted, share_canary=0.25, shadow=True, reason="see")
    assert (begun["challenger"], begun["share_canary"], begun["shadow"]) == (wanted, 0.25, True)
    assert client.end_trial("tickets", reason="seen")["challenger"] is None
    with pytest.raises(GateRefused):
        client.begin_trial("tickets", adapter_digest=begun["champion"], shadow=True, reason="no")
