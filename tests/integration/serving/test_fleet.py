"""Two replicas and two gateways on a real Ray, put there by the generated file and Ray's own `serve deploy`, with faults under load."""

from __future__ import annotations

import ipaddress
import os
import signal
import time
from collections.abc import Iterator
from functools import partial

import grpc
import psutil
import pytest

from .clients import Clients
from .stack import Stack, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
FIRST, SECOND = "sha256:first", "sha256:second"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica at first; FIRST answers and SECOND answered before."""
    with Stack(tmp_path_factory.mktemp("fleet"), replica_count=2, gateway_count=2, deadline_s=60.0, prove_s=0.5, drain_s=5.0) as stack:
        stack.start_ray()
        wait_for(lambda: _deployed(stack), "serve deploy is accepted", 120)
        for number in (1, 2):
            stack.start_gateway(number)
        stack.assign("tickets", SECOND)
        stack.assign("tickets", FIRST)
        try:
            wait_for(lambda: all(ready(stack, number) for number in (0, 1)), "each gateway is ready", 150)
        except AssertionError as error:
            said = [stack.get("/readyz", port=port) for port in stack.settings.own_gateway_ports]
            raise AssertionError(f"{error}: {said}\n{stack.where('gateway')}\n{stack.where('gateway-2')}") from None
        wait_for(lambda: stack.predict("tickets", "ready?")[0] == 200, "the first route is followed")
        yield stack


def _deployed(stack: Stack) -> bool:
    """The head's dashboard takes a few seconds until it takes deployments."""
    if stack.get("/api/version", port=stack.settings.ports.ray_dashboard)[0] not in (200, 401):
        return False
    print(stack.serve_deploy(1))
    return True


def ready(stack: Stack, number: int) -> bool:
    """Whether the gateway of that index says that a replica answers."""
    return stack.get("/readyz", port=stack.settings.own_gateway_ports[number])[0] == 200


def complete(stack: Stack, count: int) -> bool:
    """Whether so many replicas live, and each says that it holds and proved all that is wanted."""
    living = {f"twin-{pid}" for pid in stack.replica_pids()}
    reports = [report for name, report in stack.reports().items() if name in living]
    return len(reports) == count and all({FIRST, SECOND} == set(r.ready) == set(r.proved_at) for r in reports)


def until_each_gateway_asks_both(stack: Stack) -> None:
    """Ray tells a gateway of a new replica a moment after that one is complete."""
    run = stack.settings.folder / "run"
    (run / "slow").touch()
    for port in stack.settings.own_gateway_ports:
        for file in run.glob("answered-slowly-*"):
            file.unlink()
        wait_for(partial(_both_answer, stack, port), f"the gateway at {port} asks both")
    (run / "slow").unlink()


def _both_answer(stack: Stack, port: int) -> bool:
    assert stack.predict("tickets", "who?", port=port)[0] == 200
    return len(list((stack.settings.folder / "run").glob("answered-slowly-*"))) == 2


def none_answered_incomplete(stack: Stack) -> bool:
    return list((stack.settings.folder / "run").glob("incomplete-*")) == []


def test_scale_out_under_load_fails_nothing_and_the_new_replica_holds_and_proves_all_before_it_answers(fleet: Stack) -> None:
    wait_for(lambda: complete(fleet, 1), "the first replica is complete")
    before = fleet.replica_pids()
    with Clients(fleet, "scale") as clients:
        wait_for(lambda: clients.statuses[200] > 20, "traffic flows")
        fleet.serve_deploy(2)
        wait_for(lambda: complete(fleet, 2), "both hold and proved what the table says")
        answered = clients.statuses[200]
        wait_for(lambda: clients.statuses[200] > answered + 50, "traffic flows on")
    assert set(clients.statuses) == {200}
    assert clients.wrong == 0
    assert set(before) < set(fleet.replica_pids()), "the first replica was not started anew"
    assert none_answered_incomplete(fleet)


def test_kill_9_of_one_of_two_replicas_fails_nothing_and_its_successor_is_complete_before_it_answers(fleet: Stack) -> None:
    wait_for(lambda: complete(fleet, 2), "both are complete")
    before = set(fleet.replica_pids())
    with Clients(fleet, "kill") as clients:
        wait_for(lambda: clients.statuses[200] > 20, "traffic flows")
        os.kill(min(before), signal.SIGKILL)
        wait_for(lambda: bool(set(fleet.replica_pids()) - before), "a successor runs")
        wait_for(lambda: complete(fleet, 2), "both hold and proved what the table says")
    assert set(clients.statuses) == {200}
    assert clients.wrong == 0
    assert none_answered_incomplete(fleet)


def test_a_version_that_fails_its_proof_on_one_replica_is_answered_by_the_other(fleet: Stack) -> None:
    wait_for(lambda: complete(fleet, 2), "both are complete")
    until_each_gateway_asks_both(fleet)
    broken = min(fleet.replica_pids())
    plant = fleet.settings.folder / "run" / f"broken-{broken}"
    with Clients(fleet, "proof") as clients:
        wait_for(lambda: clients.statuses[200] > 20, "traffic flows")
        beside = plant.with_suffix(".new")
        beside.write_text(FIRST)
        beside.replace(plant)
        wait_for(lambda: FIRST in fleet.reports()[f"twin-{broken}"].refused, "the replica says that it refuses the version")
        answered = clients.statuses[200]
        wait_for(lambda: clients.statuses[200] > answered + 100, "traffic flows on")
        assert "its head is another one" in fleet.reports()[f"twin-{broken}"].lapsed[FIRST]
        plant.unlink()
        wait_for(lambda: complete(fleet, 2), "it is loaded anew and proved")
    assert set(clients.statuses) == {200}
    assert clients.wrong == 0


def test_a_frozen_replica_is_survived(fleet: Stack) -> None:
    wait_for(lambda: complete(fleet, 2), "both are complete")
    frozen = min(fleet.replica_pids())
    with Clients(fleet, "frozen") as clients:
        wait_for(lambda: clients.statuses[200] > 20, "traffic flows")
        os.kill(frozen, signal.SIGSTOP)
        try:
            answered, stopped = clients.statuses[200], time.monotonic()
            wait_for(lambda: clients.statuses[200] > answered + 100 and time.monotonic() - stopped > 3, "traffic flows on")
        finally:
            os.kill(frozen, signal.SIGCONT)
    assert set(clients.statuses) == {200}
    assert clients.wrong == 0


def test_scale_in_under_load_ends_what_was_begun(fleet: Stack) -> None:
    wait_for(lambda: complete(fleet, 2), "both are complete")
    with Clients(fleet, "drain") as clients:
        wait_for(lambda: clients.statuses[200] > 20, "traffic flows")
        fleet.serve_deploy(1)
        wait_for(lambda: len(fleet.replica_pids()) == 1, "one replica is left")
        answered = clients.statuses[200]
        wait_for(lambda: clients.statuses[200] > answered + 20, "traffic flows on")
    assert set(clients.statuses) == {200}
    assert clients.wrong == 0


def test_load_makes_ray_start_a_replica_and_what_it_began_is_ended_when_it_goes_after_the_load(fleet: Stack) -> None:
    run, fixed = fleet.settings.folder / "run", set(fleet.replica_pids())
    try:
        with Clients(fleet, "light", count=1) as light:
            fleet.serve_deploy(1, most=2)
            # Ray starts the replica anew, since its number is a range now.
            wait_for(lambda: fixed.isdisjoint(fleet.replica_pids()) and complete(fleet, 1), "one replica is complete")
            before = set(fleet.replica_pids())
            (run / "slow").touch()
            with Clients(fleet, "load", count=12) as load:
                wait_for(lambda: complete(fleet, 2), "a second replica holds and proved what the table says", 180)
                (new,) = set(fleet.replica_pids()) - before
                wait_for((run / f"answered-slowly-{new}").exists, "it answers")
                answered = load.statuses[200]
                wait_for(lambda: load.statuses[200] > answered + 50, "traffic flows on")
            wait_for(lambda: len(fleet.replica_pids()) == 1, "one replica is left", 180)
            answered = light.statuses[200]
            wait_for(lambda: light.statuses[200] > answered + 5, "traffic flows on")
    finally:
        (run / "slow").unlink(missing_ok=True)
    assert set(load.statuses) == set(light.statuses) == {200}
    assert load.wrong == light.wrong == 0
    assert not (run / f"incomplete-{new}").exists()


def test_kill_9_of_one_of_two_gateways_is_not_seen_by_clients_that_retry_once(fleet: Stack) -> None:
    with Clients(fleet, "gateway", retries=1) as clients:
        wait_for(lambda: clients.statuses[200] > 50, "traffic flows")
        fleet.end("gateway", signal.SIGKILL)
        answered = clients.statuses[200]
        wait_for(lambda: clients.statuses[200] > answered + 100, "traffic flows through the other")
        fleet.start_gateway()
        wait_for(lambda: ready(fleet, 0), "it is back")
    assert set(clients.statuses) == {200}
    assert clients.wrong == 0


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback


def test_the_grpc_port_of_a_replica_answers_nobody_who_has_no_token(fleet: Stack) -> None:
    sockets = psutil.Process(fleet.replica_pids()[0]).net_connections(kind="inet")
    (port,) = {one.laddr.port for one in sockets if one.status == psutil.CONN_LISTEN and not is_loopback(one.laddr.ip)}
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for metadata in ((), (("authorization", "Bearer " + "0" * 64),)):
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary("/ray.serve.ASGIService/HandleRequest")(b"", metadata=metadata, timeout=10)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_every_port_of_the_data_plane_is_on_loopback_and_the_gateways_share_one(fleet: Stack) -> None:
    listening: dict[tuple[str, int], set[int]] = {}
    for process in fleet.processes.values():
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in family:
            for socket in one.net_connections(kind="inet"):
                if socket.status == psutil.CONN_LISTEN:
                    listening.setdefault((socket.laddr.ip, socket.laddr.port), set()).add(one.pid)
    wide = {address: [psutil.Process(pid).name() for pid in pids] for address, pids in listening.items() if not is_loopback(address[0])}
    # Ray gives no say in where a replica's own gRPC server listens (2.60); it asks for the token as the others do.
    assert {name for names in wide.values() for name in names} <= {"ray::ServeReplica:holdfast:Replica"}
    gateways = [fleet.processes[name].pid for name in ("gateway", "gateway-2")]
    assert listening["127.0.0.1", fleet.settings.ports.gateway] == set(gateways)
    assert [listening["127.0.0.1", port] for port in fleet.settings.own_gateway_ports] == [{pid} for pid in gateways]
