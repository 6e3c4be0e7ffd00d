"""The demonstration when its home is stopped under it: it ends at once, with one message and the code of what is unhealthy."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path

import pytest

from holdfast import cli
from holdfast.cli.demo_traffic import Traffic
from holdfast.cli.demo_world import synthetic
from holdfast.cli.run_files import HomeState, HomeStatus, lock, write_status
from holdfast.client import Client
from holdfast.testing.traffic import history


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A part that takes connections and never answers, at the ports of the API and the gateway."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen()
        for part in ("API", "GATEWAY"):
            monkeypatch.setenv(f"HOLDFAST_PORTS__{part}", str(made.getsockname()[1]))
        yield made


def tell(home: Path, state: HomeState) -> None:
    write_status(home / "run", HomeStatus(state=state, pid=os.getpid(), started_at=datetime.now(UTC), children=()))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", ["told to end", "gone"])
def test_a_home_stopped_by_somebody_else_ends_the_story_at_once(
    listener: socket.socket, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    home = tmp_path / "home"
    cli.run(["--home", str(home), "init"])
    codes: list[int] = []
    story = threading.Thread(target=lambda: codes.append(cli.run(["--home", str(home), "demo", "--once"])))
    with lock(home):
        tell(home, "running")
        story.start()
        listener.accept()[0].close()  # the story asks: it is at work
        if how == "told to end":
            tell(home, "stopping")
            listener.close()
            story.join(30)
    listener.close()
    story.join(30)
    assert codes == [cli.UNHEALTHY]
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    assert "error: The home was stopped while it was needed" in said


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_stops_a_demo_as_ctrl_c_does(listener: socket.socket, tmp_path: Path, number: signal.Signals) -> None:
    home = tmp_path / "home"
    cli.run(["--home", str(home), "init"])
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the tests ignore it, and so would the child
    with lock(home):
        tell(home, "running")
        argv = [sys.executable, "-m", "holdfast", "--home", str(home), "demo", "--once"]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as story:
            listener.accept()[0].close()  # it is at work
            story.send_signal(number)
            assert story.wait(30) == cli.INTERRUPTED
            assert story.stderr is not None
            assert story.stderr.read().splitlines()[-1] == "stopped"
    signal.signal(signal.SIGHUP, before)


@pytest.mark.timeout(60)
def test_traffic_that_is_given_up_stops_without_the_minute_of_tries(listener: socket.socket) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Client(url, url, "key") as client:
        traffic = Traffic(client, "tickets", replace(synthetic(1, 1, 1), tickets=repeat(history(1, 1)[0])), run="r", per_second=50.0)
        traffic.start()
        listener.accept()[0].close()
        listener.close()
        traffic.give_up()
        traffic.stop()
    assert traffic.failed_count > 0
    assert not any(thread.name.startswith("client-") for thread in threading.enumerate())
