"""A real home for tests of the whole: started by the command, ended by the command, its processes killed by name in between."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

PORTS = ("API", "GATEWAY", "MLFLOW", "EVIDENTLY", "RAY", "RAY_DASHBOARD", "RAY_CLIENT", "GATEWAY_OWN")
SIGNS: Mapping[str, tuple[str, ...]] = {
    "gateway": ("-m holdfast.serving",),
    "replica": ("ray::ServeReplica",),
    "head": ("ray.scripts.scripts start",),
    "worker": ("-m holdfast_jobs",),
    "api": ("-m holdfast.api",),
    "training": ("holdfast.backends.lora.job",),
    "evidently": ("evidently.cli",),
    "mlflow": ("mlflow.server", "mlflow server", "mlflow-server", "uvicorn mlflow"),
}
"""What a process of that part shows in its command line."""


class RunningHome:
    """A home in ``folder`` on free ports; ``with`` starts and ends it. ``settings``: name to value, as in ``SERVING__PROVE_S="5"``."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.settings = folder, settings
        self.ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))

    def __enter__(self) -> Self:
        self._command("up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._command("down")

    @property
    def key(self) -> str:
        """The first API key."""
        return (self.folder / "keys" / "admin.key").read_text().strip()

    def url(self, port: str) -> str:
        """Address of one of ``PORTS``."""
        return f"http://127.0.0.1:{self.ports[port]}"

    def kill(self, part: str, *, within_s: float = 60.0) -> int:
        """SIGKILL to every process of a part of this home, as soon as there is one; how many there were."""
        deadline = time.monotonic() + within_s
        while not (found := self.processes(part)):
            if time.monotonic() > deadline:
                return 0
            time.sleep(0.2)
        for process in found:
            process.kill()
        return len(found)

    def processes(self, part: str) -> list[psutil.Process]:
        """The living processes of a part, the oldest first."""
        found = [p for p in self.everything() if any(sign in _words(p) for sign in SIGNS[part])]
        return sorted(found, key=lambda p: p.create_time())

    def everything(self) -> list[psutil.Process]:
        """The supervisor of this home and all its descendants."""
        roots = [p for p in psutil.process_iter() if f"--home {self.folder} up" in _words(p)]
        return roots + [child for root in roots for child in root.children(recursive=True)]

    def _command(self, command: str) -> None:
        ports = {f"HOLDFAST_PORTS__{name}": str(port) for name, port in self.ports.items()}
        given = {f"HOLDFAST_{name}": value for name, value in self.settings.items()}
        env = {**os.environ, **ports, **given}  # noqa: TID251 - for the child
        argv = [sys.executable, "-m", "holdfast", "--home", str(self.folder), command]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=400)
        if done.returncode != 0:
            raise RuntimeError(f"holdfast {command} ended with {done.returncode}: {done.stderr[-2000:]}")


def part_of(process: psutil.Process) -> str:
    """The first part of ``SIGNS`` whose sign it shows; for what shows none, `Ray` or `other`."""
    words = _words(process)
    named = (part for part, signs in SIGNS.items() if any(sign in words for sign in signs))
    return next(named, "Ray" if "ray" in words.lower() else "other")


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()
