"""The only door to Ray for the data plane: how the head is started, how a process joins it, and the Serve application.

Importing this module imports no Ray: a process sets ``client_environment`` first, since Ray reads its environment at import.

The head listens where only this machine reaches it and asks for a token everywhere: Jobs API, dashboard and GCS. Nothing here ever
calls ``ray stop``, which ends every Ray on the machine; the head is one process group, ended by its pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from holdfast.errors import PartUnavailable, StorageRefused

APP = "holdfast"
NODE = "127.0.0.1"
"""The one address at which Ray 2.60 binds GCS, raylet, agents and workers to loopback; at any other they listen on every interface."""
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Else Ray swaps 127.0.0.1 for the machine's outward address on Linux; with it a node is never part of a cluster of several."""
OBJECT_STORE_BYTES = 80 * 1024 * 1024
"""Ray's least is 75 MiB; our micro-batches are kilobytes and travel inline."""
CPU_COUNT = 2
"""Slots, not cores: a replica takes a tenth of one, a training job's entrypoint none. Few slots, few idle workers."""
ELSEWHERE = 2
"""Replicas that are asked after the first for what it refuses. A version refused by three is not mended by a fourth."""
WireQuestion = tuple[str, str]
"""Digest of the adapter (or what `ids.bare` makes of a base), text."""
WireAnswer = tuple[str, float, bytes, tuple[int, int]] | str
"""Label, confidence, embedding as little-endian float16, tokens of the text and of what was read of it; or why there is no answer."""


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
    return argv, client_environment(settings)


def client_environment(settings: RaySettings) -> dict[str, str]:
    """What must stand in the environment of a process before it imports Ray; the head's workers inherit it from the head."""
    return {
        **LOOPBACK,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path(settings)),
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


class RayFleet:
    """A driver's connection to the head and to the Serve application, made anew after either went away."""

    def __init__(self, settings: RaySettings, application: str) -> None:
        """``application`` is the import path of the function that builds the Serve application from its arguments."""
        self._settings = settings
        self._application = application
        self._handle: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where the handle is asked, and where Ray runs its tasks."""
        self._session: str | None = None
        self._connecting = threading.Lock()

    def alive(self) -> bool:
        """Whether the head that this process joined still is the one that runs; asks no Ray, so it never hangs."""
        return self._session is not None and self._session == self._running_session()

    def connect(self, arguments: dict[str, str], *, redeploy: bool = False) -> None:
        """Join the head, make sure that the application is deployed, and hold its handle. Blocks for seconds.

        Raises:
            PartUnavailable: when the head does not run or the application cannot be started.
        """
        with self._connecting:
            session = self._running_session()
            if session is None:
                raise PartUnavailable(part="ray", reason=f"no head listens at {NODE}:{self._settings.ports.ray}")
            os.environ.update(client_environment(self._settings))  # noqa: TID251  (Ray reads it at import)
            try:
                self._join(session)
                self._hold(self._deployed(arguments, redeploy=redeploy))
            except Exception as error:
                raise PartUnavailable(part="ray", reason=f"{type(error).__name__}: {error}"[:500]) from error

    async def ask(self, questions: Sequence[WireQuestion]) -> list[WireAnswer]:
        """Cross Ray once with a micro-batch; what that replica refuses goes to others. Raises PartUnavailable when an answer was lost."""
        if self._handle is None:
            raise PartUnavailable(part="replica", reason="not connected yet")
        self._loop = asyncio.get_running_loop()
        found: dict[int, WireAnswer] = {}
        avoid: list[str] = []
        left = list(range(len(questions)))
        while True:
            try:
                replica, answers = await self._handle.answer.remote([questions[i] for i in left], avoid=avoid)
            except Exception as error:
                raise PartUnavailable(part="replica", reason=f"{type(error).__name__}: {str(error)[:200]}") from error
            found |= dict(zip(left, answers, strict=True))
            left = [i for i in left if isinstance(found[i], str)]
            if not left or replica in avoid or len(avoid) == ELSEWHERE:
                return [found[i] for i in range(len(questions))]
            avoid.append(replica)

    def close(self) -> None:
        """Leave the head; the application stays."""
        self._hold(None)
        self._session = None
        if "ray" in sys.modules:
            import ray

            with contextlib.suppress(Exception):  # leaving a head that is gone may fail in many ways, none of which matters
                ray.shutdown()

    def _hold(self, handle: Any) -> None:
        """Ask by this handle from now on. The tasks of the one before would outlive its head and ask for it for ever: they are ended."""
        before, self._handle = self._handle, handle
        if before is not None and before is not handle and self._loop is not None:
            asyncio.run_coroutine_threadsafe(before.shutdown_async(), self._loop)

    def _join(self, session: str) -> None:
        import ray

        if ray.is_initialized() and self._session == session:
            return
        self.close()
        ray.init(
            address=f"{NODE}:{self._settings.ports.ray}", namespace=APP, log_to_driver=False, configure_logging=False,
            logging_level="ERROR",
        )  # fmt: skip
        self._session = session

    def _deployed(self, arguments: dict[str, str], *, redeploy: bool) -> Any:
        import importlib

        from ray import serve
        from ray.serve import RunTarget

        def lacks() -> bool:
            status = serve.status().applications.get(APP)
            return status is None or status.status in ("DEPLOY_FAILED", "UNHEALTHY", "DELETING", "NOT_STARTED")

        with _alone(self._settings.folder / "run" / "deploy.lock"):  # of two gateways one deploys, the other finds it done
            # First: it finds out that the controller of an earlier head is gone. No HTTP port of Serve: the gateway is the only way in.
            serve.start(proxy_location="Disabled")
            if redeploy or lacks():
                module, _, name = self._application.partition(":")
                build = getattr(importlib.import_module(module), name)
                serve.run_many([RunTarget(build(arguments), name=APP, route_prefix=None)], wait_for_applications_running=False)
        return serve.get_app_handle(APP)

    def _running_session(self) -> str | None:
        """Name of the newest session of the head, if something listens on its port."""
        try:
            with socket.create_connection((NODE, self._settings.ports.ray), timeout=1.0):
                return str((self._settings.ray_folder / "session_latest").readlink())
        except OSError:
            return None


@contextlib.contextmanager
def _alone(path: Path, patience_s: float = 30.0) -> Iterator[None]:
    """Hold a lock file, or go on without it after a while: deploying twice costs a restart, a gateway that never joins costs more."""
    deadline = time.monotonic() + patience_s
    with path.open("a") as file:  # the operating system lets go when this process dies
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
        yield
