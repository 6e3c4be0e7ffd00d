"""Which servers bench_http_peers compares, each at its defaults and at its best documented setting."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.peer_servers import HERE, MODEL, RAY_PLAIN, RAY_TUNED, Absent, Arm, Servers
from tests.integration.serving.stack import free_ports

CLASSIFY = {"real": "/predict", "null": "/null"}
LISTS = {"real": "/predict of a list", "null": "/null of a list"}
INVOKE = {"real": "/invocations", "null": "/invocations, null"}
OWN_VERSIONS = {
    "bentoml": ("bentoml",),
    "embedders": ("sentence-transformers",),
    "infinity": ("infinity-emb", "torch", "transformers", "optimum", "onnxruntime"),
}


def start_all(servers: Servers) -> tuple[list[Arm], str]:
    """Every server that can be started, Holdfast first; and the versions of what has an environment of its own."""
    own = servers.holdfast()  # first: it measures and compiles what all engines here use
    for begin in (_ray, _bento, _mlflow, _fastapi, _embedders):
        begin(servers)
    return [own, *servers.arrived()], _versions(servers)


def _ray(servers: Servers) -> None:
    home = str(servers.home)
    token = {"RAY_AUTH_TOKEN_PATH": str(servers.home / "run" / "ray.token")}
    metrics, stats = free_ports(2)
    places = {name: str(servers.scratch / "haproxy" / file) for name, file in {
        "CONFIG_FILE_LOC": "haproxy.cfg", "SOCKET_PATH": "admin.sock", "SERVER_STATE_BASE": ".", "SERVER_STATE_FILE": "state",
    }.items()}  # fmt: skip
    (servers.scratch / "haproxy").mkdir()
    proxy = {f"RAY_SERVE_HAPROXY_{name}": value for name, value in places.items()}
    proxy |= {"RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics), "RAY_SERVE_HAPROXY_STATS_PORT": str(stats)}

    def argv(kind: str) -> Callable[[int], Sequence[str]]:
        return lambda port: [sys.executable, str(HERE / "ray_server.py"), str(port), home, kind]

    tuned = "HAProxy, throughput mode, batches of 32 without waiting, 128 ongoing"
    servers.start("Ray Serve @serve.batch", "defaults", argv("default"), RAY_PLAIN | token, CLASSIFY)
    servers.start("Ray Serve @serve.batch", tuned, argv("tuned"), RAY_PLAIN | token | RAY_TUNED | proxy, CLASSIFY)


def _bento(servers: Servers) -> None:
    def argv(kind: str) -> Callable[[int], Sequence[str]]:
        service = f"tests.bench.peers.bento_service:{kind}"
        return lambda port: [
            str(servers.python("bentoml")), "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port),
        ]  # fmt: skip

    tuned = "batches of 32 within 1 s, concurrency 32, no access log, no metrics"
    servers.start("BentoML", "defaults, batchable", argv("Default"), {}, LISTS)
    servers.start("BentoML", tuned, argv("Tuned"), {}, LISTS)


def _mlflow(servers: Servers) -> None:
    folder = servers.scratch / "pyfunc"
    command = [sys.executable, str(HERE / "mlflow_model.py"), str(folder)]
    subprocess.run(command, env=servers.env(), check=True, capture_output=True, cwd=servers.scratch)

    def argv(workers: int) -> Callable[[int], Sequence[str]]:
        return lambda port: [
            sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder), "--env-manager", "local", "-h", "127.0.0.1",
            "-p", str(port), "-w", str(workers),
        ]  # fmt: skip

    servers.start("mlflow models serve", "defaults (1 worker)", argv(1), {}, INVOKE)
    servers.start("mlflow models serve", "2 workers, so 2 models", argv(2), {}, INVOKE)


def _fastapi(servers: Servers) -> None:
    def argv(workers: int) -> Callable[[int], Sequence[str]]:
        return lambda port: [sys.executable, str(HERE / "fastapi_server.py"), str(port), str(servers.home), str(workers)]

    servers.start("FastAPI + uvicorn", "defaults (1 worker)", argv(1), {}, CLASSIFY)
    servers.start("FastAPI + uvicorn", "2 workers, so 2 models", argv(2), {}, CLASSIFY)


def _embedders(servers: Servers) -> None:
    def infinity(engine: str) -> Callable[[int], Sequence[str]]:
        return lambda port: [
            "env", "-C", str(MODEL if engine == "torch" else _exported(servers)), str(servers.python("infinity").with_name("infinity_emb")),
            "v2", "--model-id", ".", "--host", "127.0.0.1", "--port", str(port), "--engine", engine, "--device", "cpu",
            "--served-model-name", "minilm",
        ]  # fmt: skip

    def by_fastapi(kind: str, folder: str, python: Callable[[], str]) -> Callable[[int], Sequence[str]]:
        return lambda port: [python(), str(HERE / "embedding_server.py"), str(port), folder, kind]

    sentence = by_fastapi("sentence-transformers", str(MODEL), lambda: str(servers.python("embedders")))
    onnx = by_fastapi("onnxruntime", str(servers.onnx_folder), lambda: sys.executable)
    ask, of_list = {"embed": "/embeddings"}, {"embed": "/embeddings of a list"}
    servers.start("infinity-emb", "torch, defaults (batches of 32)", infinity("torch"), {}, of_list)
    servers.start("infinity-emb", "optimum: the graph in ONNX Runtime", infinity("optimum"), {}, of_list)
    servers.start("sentence-transformers", "behind FastAPI, one by one", sentence, {}, ask)
    servers.start("onnxruntime", "fp32, behind FastAPI, one by one", onnx, {}, ask)


def _exported(servers: Servers) -> Path:
    """The model as optimum exports it. The engine takes a graph only from its own working folder (optimum-onnx 0.1). Raises Absent."""
    folder, tool = servers.scratch / "exported", servers.python("infinity").with_name("optimum-cli")
    options = ("--task", "feature-extraction", "--library", "transformers")
    command = [str(tool), "export", "onnx", "--model", str(MODEL), *options, str(folder)]
    done = subprocess.run(command, env=servers.env(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Absent(f"optimum-cli: {(done.stderr.strip().splitlines() or ['?'])[-1][:200]}")
    return folder


def _versions(servers: Servers) -> str:
    said = []
    for name, packages in OWN_VERSIONS.items():
        code = f"from importlib.metadata import version; print(', '.join(f'{{p}} {{version(p)}}' for p in {packages!r}))"
        try:
            said.append(subprocess.run([str(servers.python(name)), "-c", code], capture_output=True, text=True, check=True).stdout.strip())
        except (Absent, subprocess.CalledProcessError):
            said.append(f"{name}: none")
    return "; ".join(said)
