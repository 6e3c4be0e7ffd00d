"""The Ray head of a home: how it is started, with what environment and what token, and how a process of ours uses Ray, whoever runs it.

Imports no Ray: a process sets ``client_environment`` first, since Ray reads its environment at import.

The head of a home listens where only this machine reaches it and asks for a token everywhere: Jobs API, dashboard and GCS. Nothing
here ever calls ``ray stop``, which ends every Ray on the machine; the head is one process group, ended by its pid.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Protocol

from holdfast.errors import StorageRefused

NODE = "127.0.0.1"
"""The one address at which Ray 2.60 binds GCS, raylet, agents and workers to loopback; at any other they listen on every interface."""
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Else Ray swaps 127.0.0.1 for the machine's outward address on Linux; with it a node is never part of a cluster of several."""
RAY = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a task of Ray's own that runs while no head is joined starts another Ray
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",  # slow machines
    "RAY_enable_metrics_collection": "0",  # about 160 series that nobody asked for
    "RAY_prestart_worker_first_driver": "0",  # an idle worker is 100 MB
    "RAY_enable_worker_prestart": "0",
    "RAY_worker_niceness": "0",  # Ray nices its workers by 15: replicas would wait for everything else on the machine
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",  # a thread hop less per micro-batch
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore",
}
"""How a process of ours uses Ray, whoever runs the head: with a token, without threads, metrics and idle workers that nobody asked for."""
OBJECT_STORE_BYTES = 80 * 1024 * 1024
"""Ray's least is 75 MiB; our micro-batches are kilobytes and travel inline."""
CPU_COUNT = 2
"""Slots, not cores: a replica takes a tenth of one, a training job's entrypoint none. Few slots, few idle workers."""


class RayPorts(Protocol):
    """The ports of the settings that concern Ray."""

    @property
    def ray(self) -> int: ...
    @property
    def ray_dashboard(self) -> int: ...
    @property
    def ray_client(self) -> int: ...


class RaySettings(Protocol):
    """The settings that concern Ray; ``holdfast.settings.Settings`` has them."""

    @property
    def folder(self) -> Path: ...
    @property
    def ray_folder(self) -> Path: ...
    @property
    def ray_address(self) -> str | None: ...
    @property
    def ports(self) -> RayPorts: ...


def head_command(settings: RaySettings) -> tuple[list[str], dict[str, str]]:
    """Argv and added environment of the process that is the Ray head of a home. Makes the token if there is none.

    The process stays in the foreground and takes its children with it when it ends (5 s to start, measured).

    Raises:
        StorageRefused: when the token cannot be written.
    """
    ensure_token(settings)
    argv = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
        f"--node-ip-address={NODE}", f"--port={settings.ports.ray}",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={settings.ports.ray_dashboard}", "--dashboard-agent-listen-port=0",
        f"--ray-client-server-port={settings.ports.ray_client}",
        f"--object-store-memory={OBJECT_STORE_BYTES}", f"--num-cpus={CPU_COUNT}", f"--temp-dir={settings.ray_folder}",
        "--disable-usage-stats", "--no-monitor", "--include-log-monitor=false",
    ]  # fmt: skip
    return argv, head_environment(settings)


def head_environment(settings: RaySettings) -> dict[str, str]:
    """What must stand in the environment of the head of a home, from which its workers inherit it, and of whoever joins it."""
    return {**RAY, **LOOPBACK, "RAY_AUTH_TOKEN_PATH": str(token_path(settings))}


def client_environment(settings: RaySettings) -> dict[str, str]:
    """What must stand in the environment of a process before it imports Ray.

    The token of a cluster that is not the home's stands there already, in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.
    """
    return head_environment(settings) if settings.ray_address is None else dict(RAY)


def token_path(settings: RaySettings) -> Path:
    """Where the token lies."""
    return settings.folder / "run" / "ray.token"


def ensure_token(settings: RaySettings) -> Path:
    """Make the token once: 256 random bits, readable by the owner only.

    Raises:
        StorageRefused: when it cannot be written.
    """
    path = token_path(settings)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists() or not path.stat().st_size:
            beside = path.with_name(f"{path.name}.{os.getpid()}")
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32))
            beside.replace(path)
    except OSError as error:
        raise StorageRefused(place=str(path), reason=error.strerror or str(error)) from error
    return path


def cluster_token(settings: RaySettings) -> bytes:
    """The token that every process of the cluster holds: of the environment, as Ray reads it, or of the home. Raises StorageRefused."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):  # noqa: TID251 - Ray's own variable; its worker processes inherit it
        return token.strip().encode()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or token_path(settings))  # noqa: TID251
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise StorageRefused(place=str(path), reason=error.strerror or str(error)) from error
    if not token:
        raise StorageRefused(place=str(path), reason="the token is empty")
    return token.encode()
