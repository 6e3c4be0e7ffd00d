"""The whole serving path (HTTP, gateway, Ray, replica, capture) at 1, 8 and 64 adapters, beside a bare server with the same engine; and
its latency at 60% load.

    python tests/bench/bench_serving.py [--smoke] [--write]

Arms, interleaved: `holdfast`; `capture off` (a second gateway before the same replica, recording nothing); `bare`: uvicorn and FastAPI
with the same engine in the same process, one request at a time in its thread pool, as one would write it in an afternoon: no key, no
routing table, no capture, no batching, no swap. MiniLM, LoRA rank 8 on the last three layers, one torch thread, closed-loop clients on
the same machine. CPU is server CPU (gateway, replica and Ray's own processes; the client is not in it) and the steadier figure on a
machine that is shared. What capture costs is read off the gateway process alone, which is all that it can change, over the CPU of
gateway and replica with capture off; the whole server's difference stands beside it and is mostly the replica's noise. ENGINE is the
CPU of the engine alone on the same texts, in batches of 8.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.serving_load import Load, cpu_seconds, drive, make_adapters, texts
from tests.bench.steady_load import steady
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
    """One server under measurement, with one number of adapters."""

    name: str
    port: int
    pids: tuple[int, ...]
    load: Load = field(default_factory=Load)
    cpu_ms: list[float] = field(default_factory=list)
    """Server CPU per request, by round."""
    own_ms: list[float] = field(default_factory=list)
    """The same without Ray's own processes."""
    front_ms: list[float] = field(default_factory=list)
    """Of the gateway alone; of a bare server, all of it."""
    rates: list[float] = field(default_factory=list)

    def measure(self, tasks: Sequence[str], *, clients: int, count: int, warming: bool) -> None:
        """One round; a warming one leaves no figures."""
        before, own, front = cpu_seconds(self.pids), _own(self.pids), cpu_seconds(self.pids[:1])
        load = asyncio.run(drive(self.port, KEY, tasks=tasks, lines=texts(400), clients=clients, count=count))
        after, own_after, front_after = cpu_seconds(self.pids), _own(self.pids), cpu_seconds(self.pids[:1])
        if not warming:
            rows = len(load.latencies_ms)
            self.load.add(load)
            self.cpu_ms.append((after - before) / rows * 1e3)
            self.own_ms.append((own_after - own) / rows * 1e3)
            self.front_ms.append((front_after - front) / rows * 1e3)
            self.rates.append(load.rate)


def _own(pids: Sequence[int]) -> float:
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
    counts, rounds, count = ((1, 4), 2, 40) if smoke else ((1, 8, 64), 12, 300)
    lines = [__doc__ or "", f"Clients 16; {rounds} rounds of {count} requests per row, all rows interleaved; medians of rounds.", ""]
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
        with start_peer(stack, peer_port, digests) as peer:
            wait_for(lambda: _answers(peer_port), "the bare server answers", 300)
            ray, gateway = stack.processes["ray"].pid, stack.processes["gateway"].pid
            table = {
                adapters: (
                    Arm("holdfast", stack.settings.ports.gateway, (gateway, ray)),
                    Arm("capture off", silent_port, (silent, ray)),
                    Arm("bare", peer_port, (peer.pid,)),
                )
                for adapters in counts
            }
            rows = [(adapters, arm) for adapters, arms in table.items() for arm in arms]
            for turn in range(rounds + 1):
                # There and back: an arm is never measured right after itself with other tasks, whom its fair queue would still expect.
                for adapters, arm in rows if turn % 2 else reversed(rows):
                    tasks = [f"task-{n}" for n in range(adapters)]
                    arm.measure(tasks, clients=16, count=count if turn else 30, warming=not turn)
            middle = table[counts[1]]
            calm = steady(
                {arm.name: arm.port for arm in middle}, {arm.name: median(arm.rates) for arm in middle}, tasks=counts[1],
                lines=texts(400), key=KEY, rounds=2 if smoke else 8, seconds=3.0 if smoke else 8.0,
            )  # fmt: skip
            peer.terminate()
        for adapters, arms in table.items():
            lines += rows_of(adapters, arms, engine_ms(store, digests[:adapters]))
    lines += [*calm, *ratios(table)]
    print("\n".join(lines))
    if write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("# Serving\n\n" + "\n".join(lines) + "\n")


def rows_of(adapters: int, arms: Sequence[Arm], engine: float) -> list[str]:
    """One table."""
    lines = [
        f"{adapters} adapter(s); ENGINE {engine:.2f} ms CPU per text",
        "",
        "| arm | requests/s | p50 ms | p99 ms | CPU ms/request | without Ray's own | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in arms:
        p50, p99 = arm.load.percentile(50), arm.load.percentile(99)
        figures = (
            f"{median(arm.rates):.0f} | {p50:.1f} | {p99:.1f} | {median(arm.cpu_ms):.2f} | {median(arm.own_ms):.2f} | {arm.load.failed}"
        )
        lines.append(f"| {arm.name} | {figures} |")
    return [*lines, ""]


def ratios(table: dict[int, tuple[Arm, Arm, Arm]]) -> list[str]:
    """What the aims are about: medians of the ratios of rounds that followed each other."""
    lines = []
    for adapters, (on, off, bare) in table.items():
        lines.append(
            f"- {adapters} adapter(s): capture costs {_cost([on], [off])} CPU (whole server {_change(on.own_ms, off.own_ms)}), "
            f"throughput {_change(on.rates, off.rates)}; "
            f"holdfast over bare: {_ratio(on.rates, bare.rates):.2f} x throughput, {_ratio(on.cpu_ms, bare.cpu_ms):.2f} x CPU"
        )
    ons, offs = [arms[0] for arms in table.values()], [arms[1] for arms in table.values()]
    lines.append(f"- all rounds: capture costs {_cost(ons, offs)} CPU")
    lines.append(f"- {max(table)} adapters against {min(table)}: {_change(ons[-1].own_ms, ons[0].own_ms)} CPU, throughput "
                 f"{_change(ons[-1].rates, ons[0].rates)}")  # fmt: skip
    return lines


def _ratio(these: Sequence[float], those: Sequence[float]) -> float:
    return median(a / b for a, b in zip(these, those, strict=True))


def _change(these: Sequence[float], those: Sequence[float]) -> str:
    """Median change in percent, and the middle half of the rounds."""
    changes = np.array([100 * (a / b - 1) for a, b in zip(these, those, strict=True)])
    low, middle, high = np.percentile(changes, [25, 50, 75])
    return f"{middle:+.1f}% ({low:+.1f} to {high:+.1f})"


def _cost(ons: Sequence[Arm], offs: Sequence[Arm]) -> str:
    """The gateway's CPU with capture less without, in percent of gateway and replica: mean of rounds and its 95% bootstrap interval."""
    pairs = zip(ons, offs, strict=True)
    costs = np.concatenate([100 * (np.array(on.front_ms) - off.front_ms) / np.median(off.own_ms) for on, off in pairs])
    drawn = np.random.default_rng(0).choice(costs, (4_000, len(costs))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{costs.mean():+.1f}% ({low:+.1f} to {high:+.1f})"


def _answers(port: int) -> bool:
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
