"""The only door to Ray for the data plane: how a process joins the head, and the Serve application.

Importing this module imports no Ray: a process sets ``client_environment`` first, since Ray reads its environment at import.

The head is that of the home, whose application the gateways deploy; or, where ``ray_address`` names one, that of a cluster that
others run and `serve deploy` deploys to: then this process runs on a node of it, and changes nothing there.

Ray says which replicas there are. Micro-batches go to them over lines of our own (`lines`, decision 0018), and by Ray's handle while
there is no line.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from holdfast.backends.ray_fleet.head import NODE, RaySettings, client_environment, cluster_token
from holdfast.backends.ray_fleet.lines import Lines
from holdfast.errors import PartUnavailable

APP = "holdfast"
ELSEWHERE = 2
"""Replicas that are asked after the first for what it refuses. A version refused by three is not mended by a fourth."""
HOW = {"method_name": "answer", "_by_reference": False, "request_serialization": "pickle", "response_serialization": "pickle"}
"""Over the gRPC port that every replica has, behind the same token: cheaper than Ray's call of an actor (decision 0017)."""
WHERE = HOW | {"method_name": "where"}
LOOK_S, LOOK_FOR_S = 1.0, 2.0
"""Seconds between two questions to Ray's handle where a replica is, which find a new one soon; and how long one may take."""
WireQuestion = tuple[str, str]
"""Digest of the adapter (or what `ids.bare` makes of a base), text."""
WireAnswer = tuple[str, float, bytes, tuple[int, int], tuple[float, ...]] | str
"""Label, confidence, embedding as little-endian float16, tokens of the text and of what was read of it, confidence of each part of the
answer; or why there is no answer."""


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
        self._lines = Lines(lambda: cluster_token(settings))
        self._looked_at = 0.0

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
        """Ask a replica a micro-batch, once; what it refuses goes to others. Raises PartUnavailable when an answer was lost."""
        found: dict[int, WireAnswer] = {}
        avoid: list[str] = []
        left = list(range(len(questions)))
        while True:
            replica, answers = await self._asked([questions[i] for i in left], avoid)
            found |= dict(zip(left, answers, strict=True))
            left = [i for i in left if isinstance(found[i], str)]
            if not left or replica in avoid or len(avoid) == ELSEWHERE:
                return [found[i] for i in range(len(questions))]
            avoid.append(replica)

    async def look(self) -> None:
        """Hear from Ray of a replica, one taken at random, and open a line to it. Never raises; does nothing when it looked just now."""
        if self._handle is None or time.monotonic() - self._looked_at < LOOK_S:
            return
        self._looked_at = time.monotonic()
        try:
            async with asyncio.timeout(LOOK_FOR_S):
                found = await self._by_ray(WHERE)
        except (PartUnavailable, TimeoutError):
            return
        await self._lines.open(*found)

    async def _asked(self, questions: Sequence[WireQuestion], avoid: Sequence[str]) -> tuple[str, Sequence[WireAnswer]]:
        """Who answered, and what; by a line where one is left."""
        while (line := self._lines.best(avoid)) is not None:
            try:
                return line.replica, await line.ask(questions)
            except PartUnavailable:
                if line.usable:  # the replica itself failed; where only its line broke, another is asked at once
                    raise
        found: tuple[str, Sequence[WireAnswer]] = await self._by_ray(HOW, questions, avoid=avoid)
        return found

    async def _by_ray(self, how: dict[str, Any], *given: Any, **named: Any) -> Any:
        """Call a replica that Ray chooses. Raises PartUnavailable."""
        if self._handle is None:
            raise PartUnavailable(part="replica", reason="not connected yet")
        self._loop = asyncio.get_running_loop()
        try:
            return await self._handle.options(**how).remote(*given, **named)
        except Exception as error:
            raise PartUnavailable(part="replica", reason=f"{type(error).__name__}: {str(error)[:200]}") from error

    def close(self) -> None:
        """Leave the head; the application stays, and the lines to its replicas as long as they live."""
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
