"""The true stack: up, a kill, down. Minutes on a busy machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import processes
from holdfast.settings import Ports

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


class Machine:
    """A home on free ports, worked by the command as a person types it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with ExitStack() as held:
            probes = [held.enter_context(socket.socket()) for _ in Ports.model_fields]
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            ports = dict(zip(Ports.model_fields, (probe.getsockname()[1] for probe in probes), strict=True))
        ours = {f"HOLDFAST_PORTS__{name.upper()}": str(port) for name, port in ports.items()}
        self._env = {**os.environ, **ours}  # noqa: TID251  (for the child)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "holdfast", "--home", str(self.home), *arguments]
        return subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=600, check=False)

    def children(self) -> dict[str, dict[str, Any]]:
        """Name to what the status says of it."""
        return {child["name"]: child for child in json.loads(self("status", "--json").stdout)["children"]}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "home")
    yield made
    made("down", "--force")


def test_everything_starts_heals_and_ends_without_a_trace(machine: Machine) -> None:
    began = machine("up")
    assert began.returncode == 0, began.stderr
    assert machine("status").returncode == 0
    assert set(machine.children()) == {"mlflow", "ray", "api", "worker", "gateway", "evidently"}
    assert machine("up").returncode == 1
    assert machine("doctor").returncode == 0

    os.kill(machine.children()["api"]["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 120
    while (api := machine.children()["api"])["restarts"] != 1 or api["state"] != "ready":
        assert time.monotonic() < deadline, api

    ended = machine("down")
    assert ended.returncode == 0, ended.stderr
    assert processes.belongings(machine.home) == ()
    assert machine("status").returncode == 3
