"""A real server on loopback: sockets that idle or dawdle keep nobody out, and its end loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.serving.batching import Answer, Question
from holdfast.serving.gateway import make_app
from holdfast.serving.http_server import Guard, Server, affordable, make_server
from holdfast.settings import Ports, Serving, Settings

from .gateway_place import FIRST, KEY, PATH, Place

BODY = json.dumps({"text": "where is it"}).encode()


class Running:
    """A gateway behind a real socket, in a thread."""

    def __init__(self, folder: Path, *, ask: Any = None, **serving: Any) -> None:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = int(one.getsockname()[1])
        self.place = Place(folder, share_canary=0.0, ask=ask)
        settings = Settings(home=folder, ports=Ports(gateway=self.port), serving=Serving(**serving))
        self.server: Server
        self.guard: Guard
        self.server, self.guard = make_server(make_app(self.place.state), settings, self.place.state.draining)
        self._thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> Running:
        self._thread.start()
        until(lambda: self.server.started, "the server listens")
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, body: bytes = BODY) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        with self.connect() as one:
            one.sendall(head_of(len(body)) + body)
            return answer_on(one)


def head_of(length: int, path: str = PATH) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {length}\r\n\r\n".encode()


def answer_on(one: socket.socket) -> tuple[int, bytes]:
    """Status and body of the next reply of a connection."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        part = one.recv(65536)
        if not part:
            return 0, raw
        raw += part
    head, _, body = raw.partition(b"\r\n\r\n")
    length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1])
    while len(body) < length:
        body += one.recv(65536)
    return int(head.split(b" ")[1]), body


def until(condition: Callable[[], bool], what: str, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def closed(one: socket.socket) -> bool:
    """Whether the other side gave the connection up."""
    try:
        one.setblocking(False)
        return one.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@contextlib.contextmanager
def sockets_of(running: Running, count: int, said: Callable[[int], bytes]) -> Iterator[list[socket.socket]]:
    """So many connections, each of which said something and then fell silent."""
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(count):
            one = stack.enter_context(running.connect())
            with contextlib.suppress(OSError):  # the server may have closed it to make room
                one.sendall(said(number))
            found.append(one)
        yield found


def half_request(number: int) -> bytes:
    return (b"", b"POST ", head_of(100)[:60], head_of(100) + b'{"te')[number % 4]


def test_two_thousand_silent_or_dawdling_connections_keep_nobody_out(tmp_path: Path) -> None:
    affordable(4096)
    with Running(tmp_path, header_s=60) as running, sockets_of(running, 2000, half_request):
        until(lambda: running.guard.open_count == 2000, "all are open")
        for _ in range(5):
            status, body = running.ask()
            assert (status, json.loads(body)["label"]) == (200, FIRST)
        assert running.guard.closed_slow_count == 0


def test_above_the_limit_the_connection_that_idles_longest_makes_room_for_the_newest(tmp_path: Path) -> None:
    with Running(tmp_path, header_s=60, connections=40) as running:
        with sockets_of(running, 200, lambda _: b"") as found:
            until(lambda: running.guard.closed_idle_count >= 160, "the oldest made room")
            assert running.ask()[0] == 200
            assert all(closed(one) for one in found[:100])
            assert not closed(found[-1])
        until(lambda: running.guard.open_count == 0, "all are gone")


def test_a_head_that_does_not_come_is_given_up_and_a_body_that_does_not_come_gets_408(tmp_path: Path) -> None:
    with Running(tmp_path, header_s=0.2) as running:
        object.__setattr__(running.place.state, "body_s", 0.2)
        with sockets_of(running, 8, lambda n: (b"", b"POST /v1")[n % 2]) as found:
            until(lambda: all(closed(one) for one in found), "silent connections are closed")
        assert running.guard.closed_slow_count == 8
        with running.connect() as one:
            one.sendall(head_of(1000) + b'{"text": "')
            status, body = answer_on(one)
        assert (status, json.loads(body)["code"]) == (408, "request_unfinished")


def test_a_head_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    with Running(tmp_path, header_s=60) as running, running.connect() as one:
        with contextlib.suppress(OSError):
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ")
            for _ in range(200):
                one.sendall(b"x" * 16384)
        until(lambda: running.guard.closed_slow_count == 1, "it was closed")
        assert running.ask()[0] == 200


def test_a_kept_connection_answers_again_and_again_and_two_requests_at_once_in_order(tmp_path: Path) -> None:
    with Running(tmp_path, header_s=60) as running, running.connect() as one:
        for _ in range(3):
            one.sendall(head_of(len(BODY)) + BODY)
            assert answer_on(one)[0] == 200
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        raw = b""
        while raw.count(b'{"status":"ok"}') < 2:
            raw += one.recv(65536)
        assert running.guard.open_count == 1


class Gate:
    """A replica that answers when it is let."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked: list[Question] = []

    async def __call__(self, questions: Sequence[Question]) -> list[Answer | str]:
        self.asked += questions
        while not self.open.is_set():
            await asyncio.sleep(0.005)
        return [(digest, 0.5, b"\x00\x3c" * 8, (3, 3), ()) for digest, _ in questions]


def test_a_caller_that_goes_away_frees_its_place_and_leaves_no_capture(tmp_path: Path) -> None:
    gate = Gate()
    with Running(tmp_path, ask=gate) as running:
        place = running.place
        with running.connect() as one:
            one.sendall(head_of(len(BODY)) + BODY)
            until(lambda: bool(gate.asked), "it is asked")
        until(lambda: place.figure('holdfast_requests_total{outcome="disconnected",task="tickets"}') == 1, "its going is noticed")
        gate.open.set()
        assert running.ask()[0] == 200
    assert len(place.captures()) == 1


def test_an_end_is_said_first_and_what_is_under_way_is_answered(tmp_path: Path) -> None:
    gate = Gate()
    with Running(tmp_path, ask=gate, gateway_drain_s=30) as running, running.connect() as asking, running.connect() as looking:
        asking.sendall(head_of(len(BODY)) + BODY)
        until(lambda: bool(gate.asked), "it is asked")
        running.server.handle_exit(signal.SIGTERM, None)
        looking.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_on(looking)[0] == 503
        assert running.place.client.get("/v2/health/ready").status_code == 503
        gate.open.set()
        assert answer_on(asking)[0] == 200
    assert len(running.place.captures()) == 1


@pytest.mark.parametrize("wanted", [64, 4096])
def test_no_more_connections_are_allowed_than_there_are_descriptors_for(wanted: int) -> None:
    assert 8 <= affordable(wanted) <= wanted
