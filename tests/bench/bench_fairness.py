"""Fairness between tasks: p99 of a quiet task alone and beside a flood on another, with the fair queue and with one FIFO queue.

    python tests/bench/bench_fairness.py [--smoke] [--write]

1. Scheduling alone, on a virtual clock: the real batcher before a modelled replica (one batch at a time; 3 ms a crossing and 6 ms a
   row, as MiniLM on one core was measured in serving.md). Free of the machine's noise, so it says what the queue itself does.
2. The whole path: HTTP, gateway, Ray, MiniLM with LoRA, one replica with one thread. Gateways before the same replica: fair ones that
   let a flood have 1 row (the default) or 4 on their way, and one whose batcher has a single line (the queue as it was before). They
   are measured in turns, rounds interleaved, quiet task alone and beside the flood in each. The quiet task: one client, a request
   every 100 to 300 ms. The flood: 48 clients that never pause and send again at once what is refused. Clients, gateways and replica
   share the machine, so the flood also costs the quiet task CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.serving_load import _answer, make_adapters, texts
from tests.integration.serving.stack import GATEWAY, KEY, Stack, free_ports, wait_for

from holdfast.backends.adapter_store import FolderAdapterStore
from holdfast.errors import Overloaded
from holdfast.serving.batching import Answer, Batcher, Question
from holdfast.settings import Serving, Settings

RESULTS = Path(__file__).parent / "results" / "fairness.md"
CROSSING_S, ROW_S = 0.003, 0.006
FLOOD_CLIENTS, ROUNDS, ROUND_S = 48, 4, 10.0
ARMS = ("1 row", "4 rows", "FIFO")
FIFO = """
from holdfast.bootstrap import fleet
from holdfast.serving import __main__ as gateway
from holdfast.serving.batching import Batcher
from holdfast.settings import read_settings
class OneLine(Batcher):
    async def answer(self, questions, *, deadline_s, flow=""):
        return await super().answer(questions, deadline_s=deadline_s)
gateway.Batcher = OneLine
settings = read_settings()
gateway.serve(settings, fleet(settings))
"""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing else is to be done."""

    def __init__(self) -> None:
        self._virtual = 0.0
        super().__init__()

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready and scheduled:
            self._virtual = max(self._virtual, scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]


class ModelReplica:
    """One batch at a time, in the order they come."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()
        self.rows = 0

    async def __call__(self, questions: Sequence[Question]) -> list[Answer | str]:
        await asyncio.sleep(CROSSING_S / 2)
        async with self._one:
            await asyncio.sleep(ROW_S * len(questions))
        self.rows += len(questions)
        await asyncio.sleep(CROSSING_S / 2)
        return [("label", 0.5, b"", (3, 3)) for _ in questions]


def modelled(*, fair: bool, flood: bool, seconds: float, task_rows: int) -> tuple[list[float], float]:
    """Latencies of the quiet task (ms) and the rows per second of both, on the virtual clock."""

    async def story() -> tuple[list[float], float]:
        replica = ModelReplica()
        bounds = {"task_queue_rows": 256, "task_rows": task_rows} if fair else {}
        batcher = Batcher(replica, batch_rows=32, queue_rows=512, lanes=2, **bounds)
        loop, chance, found = asyncio.get_running_loop(), random.Random(3), []

        async def flooding() -> None:
            while loop.time() < seconds:
                try:
                    await batcher.answer([("flood", "text")], deadline_s=30, flow="flood" if fair else "")
                except Overloaded:
                    await asyncio.sleep(0.01)

        floods = [asyncio.create_task(flooding()) for _ in range(FLOOD_CLIENTS if flood else 0)]
        while loop.time() < seconds:
            await asyncio.sleep(chance.uniform(0.1, 0.3))
            began = loop.time()
            await batcher.answer([("quiet", "text")], deadline_s=30, flow="quiet" if fair else "")
            found.append((loop.time() - began) * 1e3)
        await asyncio.gather(*floods)
        return found, replica.rows / seconds

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story())


@dataclass
class Seen:
    """What the quiet task saw at one gateway, in one condition."""

    quiet_ms: list[float] = field(default_factory=list)
    inside_ms: list[float] = field(default_factory=list)
    flood_rows: int = 0
    flood_refused: int = 0
    seconds: float = 0.0


async def _one(port: int, task: str, text: str, link: list[Any]) -> tuple[int, bytes]:
    """One request on a kept connection; its status and body."""
    if not link:
        link += await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"text": text}).encode()
    head = f"POST /v1/tasks/{task}/predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    link[1].write(head.encode() + body)
    return await _answer(link[0])


async def quiet(port: int, seconds: float, seed: int) -> list[tuple[float, float]]:
    """The quiet client: milliseconds as it saw them, and as the gateway did (from admission to capture)."""
    lines, chance, ends, found = texts(400), random.Random(seed), time.perf_counter() + seconds, []
    link: list[Any] = []
    while time.perf_counter() < ends:
        began = time.perf_counter()
        status, raw = await _one(port, "task-0", lines[chance.randrange(len(lines))], link)
        if status == 200:
            found.append(((time.perf_counter() - began) * 1e3, float(json.loads(raw)["latency_ms"])))
        await asyncio.sleep(chance.uniform(0.1, 0.3))
    link[1].close()
    return found


async def measured(port: int, seen: Seen, *, flood: bool, seconds: float) -> None:
    """One round. The quiet client is a process of its own, so that the flood's clients do not hold its loop."""
    lines, chance = texts(400), random.Random(len(seen.quiet_ms))
    ended = asyncio.Event()

    async def flooding() -> None:
        link: list[Any] = []
        while not ended.is_set():
            status, _ = await _one(port, "task-1", lines[chance.randrange(len(lines))], link)
            seen.flood_rows += status == 200
            seen.flood_refused += status == 429
        link[1].close()

    floods = [asyncio.create_task(flooding()) for _ in range(FLOOD_CLIENTS if flood else 0)]
    await asyncio.sleep(1.0)  # the flood stands before it is looked at
    command = [sys.executable, __file__, "--quiet", str(port), str(seconds), str(len(seen.quiet_ms))]
    began = time.perf_counter()
    client = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    said, _ = await client.communicate()
    seen.seconds += time.perf_counter() - began + 1.0
    ended.set()
    await asyncio.gather(*floods)
    for whole, inside in json.loads(said):
        seen.quiet_ms.append(whole)
        seen.inside_ms.append(inside)


def whole_path(*, rounds: int, seconds: float) -> dict[tuple[str, bool], Seen]:
    """Arm and whether a flood was on, to what the quiet task saw."""
    found = {(arm, flood): Seen() for arm in ARMS for flood in (False, True)}
    with tempfile.TemporaryDirectory(prefix="hf-fair-") as name:
        folder = Path(name)
        with Stack(folder / "home", application="holdfast.serving.app:build") as stack:
            store = FolderAdapterStore(stack.settings.folder / "adapters")
            for number, digest in enumerate(make_adapters(folder / "made", store, 2)):
                stack.assign(f"task-{number}", digest)
            stack.start_ray()
            stack.start_gateway()
            wait_for(stack.ready, "the gateway is ready", 300)
            ports = {"1 row": stack.settings.ports.gateway} | dict(zip(ARMS[1:], free_ports(2), strict=True))
            _start_beside(stack, ports["4 rows"], Serving(task_rows=4), GATEWAY.format(application=stack.application))
            _start_beside(stack, ports["FIFO"], Serving(), FIFO)
            for arm, one in ports.items():
                asyncio.run(measured(one, Seen(), flood=True, seconds=3.0))  # warms
                print(f"warm: {arm}", flush=True)
            for number in range(rounds):
                for arm, flood in _turns(number):
                    asyncio.run(measured(ports[arm], found[arm, flood], flood=flood, seconds=seconds))
                print(f"round {number + 1} of {rounds}", flush=True)
    return found


def _turns(number: int) -> list[tuple[str, bool]]:
    turns = [(arm, flood) for arm in ARMS for flood in (False, True)]
    return turns if number % 2 else turns[::-1]


def _start_beside(stack: Stack, port: int, serving: Serving, code: str) -> None:
    """A further gateway before the same replica."""
    before = stack.settings
    ports = before.ports.model_copy(update={"gateway": port})
    stack.settings = Settings(home=before.folder, ports=ports, serving=serving)
    stack._launch(f"gateway-{port}", [sys.executable, "-c", code], {})
    wait_for(stack.ready, "a further gateway is ready", 120)
    stack.settings = before


def row_of(name: str, alone: Sequence[float], beside: Sequence[float], more: str) -> str:
    """One line of the table, with a bootstrap interval of the ratio of the p99s."""
    rng = np.random.default_rng(0)
    draws = [np.percentile(rng.choice(beside, len(beside)), 99) / np.percentile(rng.choice(alone, len(alone)), 99) for _ in range(2000)]
    low, high = np.percentile(draws, [2.5, 97.5])
    a, b = np.percentile(alone, [50, 99]), np.percentile(beside, [50, 99])
    return f"| {name} | {a[0]:.1f} / {a[1]:.1f} | {b[0]:.1f} / {b[1]:.1f} | {b[1] / a[1]:.2f} ({low:.2f} to {high:.2f}) | {more} |"


def report(rounds: int, seconds: float, virtual_s: float) -> str:
    """The text of the results."""
    limits = Serving()
    parts = ["# Fairness\n", (__doc__ or "").strip(), "", f"## Virtual clock, {virtual_s:g} s\n"]
    parts += [
        "| queue | alone p50 / p99 ms | beside the flood p50 / p99 ms | p99 ratio (95 %) | rows/s with the flood |",
        "|---|---|---|---|---|",
    ]
    arms: list[tuple[str, bool, int]] = [("FIFO", False, 0)] + [
        (f"fair, {n} rows of a task on their way" + (" (the default)" if n == limits.task_rows else ""), True, n) for n in (1, 2, 4, 8, 16)
    ]
    run: Callable[..., tuple[list[float], float]] = modelled
    for name, fair, rows in arms:
        alone, _ = run(fair=fair, flood=False, seconds=virtual_s, task_rows=rows)
        beside, rate = run(fair=fair, flood=True, seconds=virtual_s, task_rows=rows)
        parts.append(row_of(name, alone, beside, f"{rate:.0f}"))
    found = whole_path(rounds=rounds, seconds=seconds)
    parts += ["", f"## Whole path, {rounds} rounds of {seconds:g} s per condition\n"]
    parts += [
        "| queue | alone p50 / p99 ms | beside the flood p50 / p99 ms | p99 ratio (95 %) | flood rows/s, refused |",
        "|---|---|---|---|---|",
    ]
    inside: list[str] = []
    for arm, name in zip(ARMS, ("fair, 1 row of a task on its way", "fair, 4 rows", "FIFO"), strict=True):
        alone_seen, seen = found[arm, False], found[arm, True]
        more = f"{seen.flood_rows / seen.seconds:.0f}, {seen.flood_refused}"
        parts.append(row_of(name, alone_seen.quiet_ms, seen.quiet_ms, more))
        inside.append(row_of(f"{name}; as the gateway saw it", alone_seen.inside_ms, seen.inside_ms, ""))
    parts += inside
    counts = ", ".join(f"{arm} {'beside' if flood else 'alone'} {len(seen.quiet_ms)}" for (arm, flood), seen in found.items())
    parts += ["", f"Quiet requests: {counts}. {_machine()}", ""]
    return "\n".join(parts)


def _machine() -> str:
    load = Path("/proc/loadavg").read_text().split()[0]
    cores = subprocess.run(["nproc", "--all"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{cores} cores, load average {load} at the end: other work ran on the machine."


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="seconds, for a look at whether it runs")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--quiet", nargs=3, metavar=("PORT", "SECONDS", "SEED"), help="be the quiet client (used by the bench itself)")
    given = parser.parse_args()
    if given.quiet:
        port, seconds, seed = given.quiet
        print(json.dumps(asyncio.run(quiet(int(port), float(seconds), int(seed)))))
        return
    text = report(2, 6.0, 20.0) if given.smoke else report(ROUNDS, ROUND_S, 600.0)
    print(text)
    if given.write:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
