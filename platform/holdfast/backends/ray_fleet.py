"""The only door to Ray for the data plane: how the head is started, how a process joins it, and the Serve application.

Importing this module imports no Ray: a process sets ``client_environment`` first, since Ray reads its environment at import.

The head is that of the home, whose application the gateways deploy; or, where ``ray_address`` names one, that of a cluster that
others run and `serve deploy` deploys to: then this process runs on a node of it, and changes nothing there.

The head of a home listens where only this machine reaches it and asks for a token everywhere: Jobs API, dashboard and GCS. Nothing
here ever calls ``ray stop``, which ends every Ray on the machine; the head is one process group, ended by its pid.
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

import psutil

from holdfast.errors import PartUnavailable, StorageRefused

APP = "holdfast"
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
ELSEWHERE = 2
"""Replicas that are asked after the first for what it refuses. A version refused by three is not mended by a fourth."""
HOW = {"method_name": "answer", "_by_reference": False, "request_serialization": "pickle", "response_serialization": "pickle"}
"""Over the gRPC port that every replica has, behind the same token: cheaper than Ray's call of an actor (decision 0017)."""
WireQuestion = tuple[str, str]
"""Digest of the adapter (or what `ids.bare` makes of a base), text."""
WireAnswer = tuple[str, float, bytes, tuple[int, int], tuple[float, ...]] | str
"""Label, confidence, embedding as little-endian float16, tokens of the text and of what was read of it, confidence of each part of the
answer; or why there is no answer."""


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


class RayFleet:
    """A driver's connection to the head and to the Serve application, made anew after either went away."""

    def __init__(self, settings: RaySettings, application: str) -> None:
        """``application`` is the import path of the function that builds the Serve application from its arguments."""
        self._settings = settings
        self._application = application
        self._address = settings.ray_address or f"{NODE}:{settings.ports.ray}"
        self._handle: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where the handle is asked, and where Ray runs its tasks."""
        self._raylet: psutil.Process | None = None
        """Ray's own process on this node, which ends with the head that it belongs to."""
        self._connecting = threading.Lock()

    def alive(self) -> bool:
        """Whether the head that this process joined still is the one that runs; asks no Ray, so it never hangs."""
        return self._raylet is not None and _lives(self._raylet) and self._listens()

    def connect(self, arguments: dict[str, str], *, redeploy: bool = False) -> None:
        """Join the head, make sure that the application is there, and hold its handle. Blocks for seconds.

        Raises:
            PartUnavailable: when the head does not run, or the application cannot be started or is not there.
        """
        with self._connecting:
            if not self._listens():
                raise PartUnavailable(part="ray", reason=f"no head listens at {self._address}")
            os.environ.update(client_environment(self._settings))  # noqa: TID251  (Ray reads it at import)
            try:
                self._join()
                self._hold(self._deployed(arguments, redeploy=redeploy) if self._settings.ray_address is None else self._found())
            except PartUnavailable:
                raise
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
                replica, answers = await self._handle.options(**HOW).remote([questions[i] for i in left], avoid=avoid)
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
        self._raylet = None
        if "ray" in sys.modules:
            import ray

            with contextlib.suppress(Exception):  # leaving a head that is gone may fail in many ways, none of which matters
                ray.shutdown()

    def _hold(self, handle: Any) -> None:
        """Ask by this handle from now on. The tasks of the one before would outlive its head and ask for it for ever: they are ended."""
        before, self._handle = self._handle, handle
        if before is not None and before is not handle and self._loop is not None:
            asyncio.run_coroutine_threadsafe(before.shutdown_async(), self._loop)

    def _join(self) -> None:
        import ray

        if ray.is_initialized() and self.alive():
            return
        self.close()
        joined = ray.init(address=self._address, namespace=APP, log_to_driver=False, configure_logging=False, logging_level="ERROR")
        self._raylet = _process_with(f"--raylet_socket_name={joined.address_info['raylet_socket_name']}")
        if self._raylet is None:
            raise PartUnavailable(part="ray", reason=f"no node of the head at {self._address} runs on this machine")

    def _found(self) -> Any:
        """The application that somebody else deployed."""
        import ray
        from ray import serve
        from ray.serve.exceptions import RayServeException

        try:
            ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
            serve.start()  # starts nothing, since there is a controller: it forgets the one of an earlier head
            return serve.get_app_handle(APP)
        except (ValueError, RayServeException) as error:
            how = "put it there with `holdfast serve-config` and `serve deploy`"
            raise PartUnavailable(part="ray", reason=f"no application {APP!r} on the cluster at {self._address}: {how}") from error

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

    def _listens(self) -> bool:
        """Whether something listens at the address of the head."""
        host, _, port = self._address.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=1.0):
                return True
        except OSError:
            return False


def _process_with(argument: str) -> psutil.Process | None:
    """The process on this machine that was started with this argument."""
    return next((one for one in psutil.process_iter(["cmdline"]) if argument in (one.info["cmdline"] or ())), None)


def _lives(process: psutil.Process) -> bool:
    """Whether it runs; one that ended and was not waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


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
