"""The whole serving path (HTTP, gateway, Ray, replica, capture) at 1, 8 and 64 adapters, beside a bare server with the same engine.

    python tests/bench/bench_serving.py [--smoke] [--write]

Arms, interleaved: `holdfast`; `capture off` (a second gateway before the same replica, recording nothing); `bare`: uvicorn and FastAPI
with the same engine in the same process, one request at a time in its thread pool, as one would write it in an afternoon: no key, no
routing table, no capture, no batching, no swap. MiniLM, LoRA rank 8 on the last three layers, one torch thread, closed-loop clients on
the same machine. CPU is server CPU (gateway, replica and Ray's own processes; the client is not in it) and the steadier figure on a
machine that is shared. ENGINE is the CPU of the engine alone on the same texts, in batches of 8: nothing can be cheaper.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.serving_load import Load, cpu_seconds, drive, make_adapters, texts
from tests.integration.serving.stack import KEY, Stack, free_ports, wait_for

from holdfast.backends.adapter_store import FolderAdapterStore
from holdfast.domain.ids import AdapterDigest
from holdfast.settings import MINILM, Settings

RESULTS = Path(__file__).parent / "results" / "serving.md"
SILENT = """
from holdfast.settings import read_settings
from holdfast.bootstrap import fleet
from holdfast.serving.__main__ import serve
settings = read_settings()
serve(settings, fleet(settings), capture=False)
"""
PEER = """
import sys, threading
import uvicorn
from pathlib import Path
from fastapi import FastAPI
from pydantic import BaseModel
from holdfast.backends.lora import LoraEngine
from holdfast.backends.adapter_store import FolderAdapterStore
from holdfast.ports import Question
from holdfast.settings import MINILM
port, folder, names = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(",")
engine, store, one = LoraEngine({"minilm": (MINILM.path, MINILM.sha256)}, 1), FolderAdapterStore(folder), threading.Lock()
for name in names:
    engine.load(name, store.folder(name))
app = FastAPI()
class Body(BaseModel):
    text: str
class Reply(BaseModel):
    label: str
    confidence: float
@app.post("/v1/tasks/{task}/predict")
def predict(task: str, body: Body) -> Reply:
    with one:
        answer = engine.answer([Question(digest=names[int(task.removeprefix("task-"))], text=body.text)])[0]
    return Reply(label=answer.prediction.label, confidence=answer.prediction.confidence)
@app.get("/readyz")
def ready() -> str:
    return "ok"
uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)
"""


@dataclass
class Arm:
    """One server under measurement."""

    name: str
    port: int
    pids: tuple[int, ...]
    load: Load = field(default_factory=Load)
    cpu: float = 0.0
    cpu_ours: float = 0.0
    """Without Ray's own processes."""

    def figures(self) -> tuple[float, float, float, float, float, int]:
        """Rate, p50, p99, CPU ms per request with and without Ray's own processes, failed."""
        rows = len(self.load.latencies_ms)
        p50, p99 = self.load.percentile(50), self.load.percentile(99)
        return self.load.rate, p50, p99, self.cpu / rows * 1e3, self.cpu_ours / rows * 1e3, self.load.failed


def measure(arm: Arm, tasks: Sequence[str], *, clients: int, count: int) -> None:
    """One round."""
    before, ours = cpu_seconds(arm.pids), _ours(arm.pids)
    load = asyncio.run(drive(arm.port, KEY, tasks=tasks, lines=texts(400), clients=clients, count=count))
    arm.load.add(load)
    arm.cpu += cpu_seconds(arm.pids) - before
    arm.cpu_ours += _ours(arm.pids) - ours


def _ours(pids: Sequence[int]) -> float:
    """CPU of the gateway (or peer) and the replica."""
    return cpu_seconds(pids, only="read_settings") + cpu_seconds(pids, only="ServeReplica") + cpu_seconds(pids, only="LoraEngine")


def engine_ms(store: FolderAdapterStore, digests: Sequence[AdapterDigest]) -> float:
    """CPU ms per text of the engine alone, in mixed batches of 8: the least of five repeats."""
    from holdfast.backends.lora import LoraEngine
    from holdfast.ports import Question

    engine = LoraEngine({"minilm": (MINILM.path, MINILM.sha256)}, 1)
    for digest in digests:
        engine.load(digest, store.folder(digest))
    asked = [Question(digest=digests[i % len(digests)], text=text) for i, text in enumerate(texts(160))]
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for at in range(0, len(asked), 8):
            engine.answer(asked[at : at + 8])
        best = min(best, time.process_time() - began)
    return best / len(asked) * 1e3


def start_peer(stack: Stack, port: int, digests: Sequence[AdapterDigest]) -> subprocess.Popen[bytes]:
    """The bare server with every adapter loaded."""
    return subprocess.Popen([sys.executable, "-c", PEER, str(port), str(stack.settings.folder / "adapters"), ",".join(digests)])


def start_silent(stack: Stack, port: int) -> int:
    """A second gateway without capture; its pid."""
    held = stack.settings
    stack.settings = Settings(home=held.folder, ports=held.ports.model_copy(update={"gateway": port}), serving=held.serving)
    stack._launch("silent", [sys.executable, "-c", SILENT], {})
    wait_for(stack.ready, "the second gateway is ready", 180)
    stack.settings = held
    return stack.processes["silent"].pid


def main(smoke: bool, write: bool) -> None:
    """Run and print."""
    counts, rounds, count = ((1, 4), 1, 60) if smoke else ((1, 8, 64), 5, 300)
    lines = [__doc__ or "", f"Clients 16, {rounds} rounds of {count} requests per arm.", ""]
    with Stack(Path(tempfile.mkdtemp(prefix="hf-bench-")), application="holdfast.serving.app:build") as stack:
        store = FolderAdapterStore(stack.settings.folder / "adapters")
        digests = make_adapters(stack.settings.folder / "scratch", store, max(counts))
        for number, digest in enumerate(digests):
            stack.assign(f"task-{number}", digest)
        stack.start_ray()
        stack.start_gateway()
        wait_for(stack.ready, "the gateway is ready", 300)
        silent_port, peer_port = free_ports(2)
        silent = start_silent(stack, silent_port)
        peer = start_peer(stack, peer_port, digests)
        ray = stack.processes["ray"].pid
        wait_for(lambda: _answers(peer_port), "the bare server answers", 300)
        try:
            table = {}
            for adapters in counts:
                arms = [
                    Arm("holdfast", stack.settings.ports.gateway, (stack.processes["gateway"].pid, ray)),
                    Arm("capture off", silent_port, (silent, ray)),
                    Arm("bare", peer_port, (peer.pid,)),
                ]
                tasks = [f"task-{n}" for n in range(adapters)]
                for turn in range(rounds + 1):
                    for arm in arms:
                        measure(arm, tasks, clients=16, count=count if turn else 30)
                        if not turn:
                            arm.load, arm.cpu, arm.cpu_ours = Load(), 0.0, 0.0  # the first round warms
                table[adapters] = {arm.name: arm.figures() for arm in arms}
                lines += rows_of(adapters, table[adapters], engine_ms(store, digests[:adapters]))
            lines += ratios(table)
        finally:
            peer.terminate()
            peer.wait(20)
    print("\n".join(lines))
    if write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("# Serving\n\n" + "\n".join(lines) + "\n")


Figures = dict[str, tuple[float, float, float, float, float, int]]


def rows_of(adapters: int, figures: Figures, engine: float) -> list[str]:
    """One table."""
    lines = [
        f"{adapters} adapter(s); ENGINE {engine:.2f} ms CPU per text",
        "",
        "| arm | requests/s | p50 ms | p99 ms | CPU ms/request | without Ray's own | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (rate, p50, p99, cpu, ours, failed) in figures.items():
        lines.append(f"| {name} | {rate:.0f} | {p50:.1f} | {p99:.1f} | {cpu:.2f} | {ours:.2f} | {failed} |")
    return [*lines, ""]


def ratios(table: dict[int, Figures]) -> list[str]:
    """What the aims are about."""
    lines = []
    for adapters, figures in table.items():
        on, off, bare = figures["holdfast"], figures["capture off"], figures["bare"]
        lines.append(
            f"{adapters} adapter(s): capture costs {100 * (on[4] / off[4] - 1):+.1f}% CPU, {100 * (1 - on[0] / off[0]):+.1f}% throughput; "
            f"holdfast over bare: {on[0] / bare[0]:.2f} x throughput, {on[3] / bare[3]:.2f} x CPU"
        )
    least, most = min(table), max(table)
    one, many = table[least]["holdfast"], table[most]["holdfast"]
    lines.append(
        f"{most} adapters against {least}: {100 * (many[4] / one[4] - 1):+.1f}% CPU, {100 * (1 - many[0] / one[0]):+.1f}% throughput"
    )
    return lines


def _answers(port: int) -> bool:
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a minute, to see that it runs")
    parser.add_argument("--write", action="store_true", help="write the table to tests/bench/results/serving.md")
    given = parser.parse_args()
    main(given.smoke, given.write)
