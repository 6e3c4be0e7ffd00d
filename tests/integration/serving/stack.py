"""A Ray head, a gateway and a database on free ports, for tests and benches that need the real data plane."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

import holdfast
from holdfast.backends.ray_fleet import OBJECT_STORE_BYTES, client_environment, head_command
from holdfast.backends.sql import SqlDatabase
from holdfast.bootstrap.deployment import serve_yaml
from holdfast.bootstrap.home import AT_ONCE
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.routing import Assignment, ReplicaReport, route_of
from holdfast.domain.tasks import TaskContract
from holdfast.settings import Ports, Serving, Settings

HERE = Path(__file__).parent
PATHS = os.pathsep.join((str(HERE), str(Path(holdfast.__file__).parents[1]), str(HERE.parents[2])))
"""The twins, the code under test and not an installed one, and the root, by which benches name applications of their own."""
KEY = "hf_" + "k" * 43
HASTE = {"upscale_delay_s": 1.0, "downscale_delay_s": 2.0, "look_back_period_s": 4.0}
"""In the words of Ray Serve. A gateway tells its load every 10 s, which is Ray's own pace."""
GATEWAY = """
import faulthandler, signal
faulthandler.register(signal.SIGUSR1, all_threads=True)
from holdfast.settings import read_settings
from holdfast.backends.ray_fleet import RayFleet
from holdfast.serving.__main__ import serve
import logging
logging.basicConfig(level=logging.INFO)
settings = read_settings()
serve(settings, RayFleet(settings, {application!r}), number={number})
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def free_run(count: int) -> int:
    """The first of so many consecutive ports that nobody listens on now."""
    while True:
        first = free_ports(1)[0]
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 90.0) -> float:
    """Seconds until the condition held. Fails with ``what`` when it never does."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout_s:
            raise AssertionError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.05)
    return time.monotonic() - started


class Stack:
    """The running parts; use as a context manager."""

    def __init__(self, folder: Path, *, application: str = "serving_twin:build", cluster: bool = False, **serving: Any) -> None:
        """``cluster``: the head is not the home's own, see ``start_cluster``."""
        ports = free_ports(7)
        names = ("api", "gateway", "mlflow", "evidently", "ray", "ray_dashboard", "ray_client")
        given = Ports(**dict(zip(names, ports, strict=True)), gateway_own=free_run(serving.get("gateway_count", 1)))
        address = f"127.0.0.1:{given.ray}" if cluster else None
        self.settings = Settings(home=folder, ports=given, serving=Serving(**serving), ray_address=address)
        self.application = application
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.database: SqlDatabase | None = None

    def __enter__(self) -> Stack:
        folder = self.settings.folder
        for name in ("run", "logs", "spool", "adapters", "snapshots", "work", "cache"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.database = SqlDatabase(self.settings.database)
        self.database.migrate()
        with self.database.unit_of_work() as work:
            work.keys.add(name="test", key_hash=hashlib.sha256(KEY.encode()).hexdigest(), created_at=datetime.now(UTC))
            work.commit()
        return self

    def __exit__(self, *_: object) -> None:
        for name in [*(n for n in self.processes if n != "ray"), "ray"]:
            self.end(name, signal.SIGTERM)
        shutil.rmtree(self.settings.ray_folder, ignore_errors=True)

    def start_ray(self) -> None:
        """Start the head and wait for nothing."""
        argv, env = head_command(self.settings)
        self._launch("ray", argv, env | AT_ONCE)

    def start_cluster(self) -> None:
        """Start a head as an operator does, by Ray's own command and defaults, and wait for nothing. The token is in the environment."""
        ports, binary = self.settings.ports, [sys.executable, "-m", "ray.scripts.scripts"]
        argv = [
            "start",
            "--head",
            "--block",
            f"--port={ports.ray}",
            f"--dashboard-port={ports.ray_dashboard}",
            "--dashboard-host=127.0.0.1",
        ]
        argv += [f"--ray-client-server-port={ports.ray_client}", "--dashboard-agent-listen-port=0", "--num-cpus=2"]
        argv += [f"--temp-dir={self.settings.ray_folder}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
        self._launch("ray", [*binary, *argv], {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", **AT_ONCE})

    def start_gateway(self, number: int = 1) -> None:
        """Start a gateway and wait for nothing."""
        name = "gateway" if number == 1 else f"gateway-{number}"
        self._launch(name, [sys.executable, "-c", GATEWAY.format(application=self.application, number=number)], {})

    def serve_deploy(self, replica_count: int, *, most: int = 0) -> str:
        """Put the generated file on the cluster with Ray's own command, as an operator does; what it printed.

        With ``most`` Ray scales up to so many replicas, sooner than at home: after ``HASTE``.
        """
        serving = self.settings.serving.model_copy(update={"replica_count": replica_count, "replica_count_max": most})
        path = self.settings.folder / "run" / "serve.yaml"
        document = yaml.safe_load(serve_yaml(self.settings.model_copy(update={"serving": serving}), build=self.application))
        if most > replica_count:
            document["applications"][0]["deployments"][0]["autoscaling_config"].update(HASTE)
        path.write_text(yaml.safe_dump(document))
        command = [sys.executable, "-c", "from ray.serve.scripts import cli; cli()", "deploy", str(path)]
        command += ["--address", f"http://127.0.0.1:{self.settings.ports.ray_dashboard}"]
        env = {**os.environ, **client_environment(self.settings), "PYTHONPATH": PATHS}  # noqa: TID251  (for the child)
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def reports(self, age_s: float = 6.0) -> dict[str, ReplicaReport]:
        """What living replicas said of themselves lately, by their id."""
        assert self.database is not None
        with self.database.unit_of_work() as work:
            return {r.replica_id: r for r in work.replicas.live(datetime.now(UTC) - timedelta(seconds=age_s))}

    def where(self, name: str) -> str:
        """Where the threads of a gateway stand, and the last it logged before: for the message of a failure."""
        self.processes[name].send_signal(signal.SIGUSR1)
        time.sleep(1.0)  # it writes them in its signal handler and tells nobody
        return self.log(name)[-6000:]

    def end(self, name: str, how: signal.Signals) -> None:
        """Signal the process and wait for its end; its whole session is killed after it."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def assign(self, task: str, digest: str, *, publish: bool = True) -> int:
        """Make ``digest`` the champion; the generation given."""
        assert self.database is not None
        with self.database.unit_of_work() as work:
            if task not in {
                contract.task for contract in work.contracts.all()
            }:  # what it wants masked must be known, or nothing is captured
                work.contracts.put(TaskContract(task=TaskName(task), labels=(), labels_open=True, floor=0.5), datetime.now(UTC))
            held = work.assignments.get(TaskName(task))
            assignment = Assignment(
                task=TaskName(task),
                champion=AdapterDigest(digest),
                previous=held.champion if held else None,
                generation=work.assignments.next_generation(),
                changed_at=datetime.now(UTC),
            )
            work.assignments.put(assignment, expected_generation=held.generation if held else None)
            if publish:
                work.assignments.publish(route_of(assignment))
            work.commit()
        return assignment.generation

    def ready(self) -> bool:
        """Whether the gateway says that a replica answers."""
        return self.get("/readyz")[0] == 200

    def get(self, path: str, *, port: int | None = None) -> tuple[int, bytes]:
        """Status and body, of the gateway where no port is named; status 0 when no answer came."""
        return self._send(urllib.request.Request(self.settings.local(port or self.settings.ports.gateway) + path))

    def predict(self, task: str, text: str, request_id: str | None = None, *, port: int | None = None) -> tuple[int, dict[str, Any]]:
        """Ask the gateway; with several, the one that has this port of its own."""
        return self.post(f"/v1/tasks/{task}/predict", {"text": text, **({"request_id": request_id} if request_id else {})}, port=port)

    def post(self, path: str, body: object, *, port: int | None = None) -> tuple[int, dict[str, Any]]:
        """Status and JSON of a request to the gateway."""
        data, headers = json.dumps(body).encode(), {"Authorization": f"Bearer {KEY}"}
        request = urllib.request.Request(f"{self.settings.local(port) if port else self.url}{path}", data=data, headers=headers)
        status, raw = self._send(request)
        return status, json.loads(raw or b"{}")

    @property
    def url(self) -> str:
        """Of the gateway."""
        return self.settings.local(self.settings.ports.gateway)

    def replica_pids(self) -> Sequence[int]:
        """Living replicas of the twin application."""
        pids = [int(p.name.rpartition("-")[2]) for p in (self.settings.folder / "run").glob("replica-*")]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def log(self, name: str) -> str:
        """What a process wrote."""
        return (self.settings.folder / "logs" / f"{name}.log").read_text()

    def _launch(self, name: str, argv: Sequence[str], env: dict[str, str]) -> None:
        ports = self.settings.ports.model_dump()
        serving = {f"HOLDFAST_SERVING__{k.upper()}": str(v) for k, v in self.settings.serving.model_dump(exclude_none=True).items()}
        full = {
            **os.environ,  # noqa: TID251  (for the child)
            **env,
            **serving,
            **{f"HOLDFAST_PORTS__{k.upper()}": str(v) for k, v in ports.items()},
            **({"HOLDFAST_RAY_ADDRESS": self.settings.ray_address} if self.settings.ray_address else {}),
            "HOLDFAST_HOME": str(self.settings.folder),
            "PYTHONPATH": PATHS,
            "PYTHONUNBUFFERED": "1",
        }
        with (self.settings.folder / "logs" / f"{name}.log").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                argv, env=full, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
            )

    @staticmethod
    def _send(request: urllib.request.Request) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except (OSError, http.client.HTTPException):  # a process that is killed may have sent half an answer
            return 0, b""


@contextlib.contextmanager
def running(folder: Path, **given: Any) -> Iterator[Stack]:
    """A stack whose head and gateway are started and which answers."""
    with Stack(folder, **given) as stack:
        stack.start_ray()
        stack.start_gateway()
        try:
            wait_for(stack.ready, "the gateway is ready", 240)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{stack.log('gateway')[-3000:]}\n{stack.log('ray')[-2000:]}") from None
        yield stack
