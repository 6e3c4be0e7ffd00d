"""Fairness between tasks: p99 of a quiet task alone and beside a flood on another, with the fair queue and with one FIFO queue.

    python tests/bench/bench_fairness.py [--smoke] [--write]

1. Scheduling alone, on a virtual clock: the real batcher before a modelled replica (3 ms a crossing and 6 ms a row; one pass at a
   time, or two as with `replica_threads` 2). Free of the machine's noise, so it says what the queue itself does. Tasks that are all
   busy: what the fair queue costs where nobody is quiet.
2. The whole path: HTTP, gateway, Ray, MiniLM with LoRA, one replica with one thread, then one with two. Gateways before the same
   replica: a fair one (the default) and one whose batcher has a single line. They are measured in turns, rounds interleaved, quiet task
   alone and beside the flood in each. The quiet task: one client, a request every 100 to 300 ms. The flood: 48 clients that never pause
   and send again at once what is refused. Clients, gateways and replica share the machine, so the flood also costs the quiet task CPU.
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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.serving_load import _answer, make_adapters, texts
from tests.bench.virtual_serving import FLOOD_CLIENTS, alike, quiet_beside
from tests.integration.serving.stack import KEY, Stack, free_ports, wait_for

from holdfast.backends.adapter_store import FolderAdapterStore
from holdfast.settings import Serving, Settings

RESULTS = Path(__file__).parent / "results" / "fairness.md"
ROUNDS, ROUND_S = 4, 10.0
ARMS = ("fair", "FIFO")
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


def whole_path(*, rounds: int, seconds: float, threads: int) -> dict[tuple[str, bool], Seen]:
    """Arm and whether a flood was on, to what the quiet task saw, before a replica with so many threads."""
    found = {(arm, flood): Seen() for arm in ARMS for flood in (False, True)}
    with tempfile.TemporaryDirectory(prefix="hf-fair-") as name:
        folder = Path(name)
        with Stack(folder / "home", application="holdfast.serving.app:build") as stack:
            store = FolderAdapterStore(stack.settings.folder / "adapters")
            for number, digest in enumerate(make_adapters(folder / "made", store, 2)):
                stack.assign(f"task-{number}", digest)
            stack.settings = stack.settings.model_copy(update={"serving": Serving(replica_threads=threads)})
            stack.start_ray()
            stack.start_gateway()
            wait_for(stack.ready, "the gateway is ready", 300)
            ports = {"fair": stack.settings.ports.gateway, "FIFO": free_ports(1)[0]}
            _start_beside(stack, ports["FIFO"], FIFO)
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


def _start_beside(stack: Stack, port: int, code: str) -> None:
    """A further gateway before the same replica."""
    before = stack.settings
    ports = before.ports.model_copy(update={"gateway": port})
    stack.settings = Settings(home=before.folder, ports=ports, serving=before.serving)
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


QUIET = """| queue | alone p50 / p99 ms | beside the flood p50 / p99 ms | p99 ratio (95 %) | {last} |
|---|---|---|---|---|"""


def virtual(seconds: float) -> list[str]:
    """The lines of the first part."""
    parts = [f"## Virtual clock, {seconds:g} s\n", QUIET.format(last="rows/s with the flood")]
    arms = [("FIFO", False, 0, 1), ("FIFO, two passes", False, 0, 2), ("fair (the default), two passes", True, Serving().task_rows, 2)]
    arms += [(f"fair, task_rows {n}" + (" (the default)" if n == Serving().task_rows else ""), True, n, 1) for n in (1, 2, 4, 8)]
    for name, fair, rows, passes in arms:
        alone, _ = quiet_beside(False, fair=fair, seconds=seconds, task_rows=rows, passes=passes)
        beside, rate = quiet_beside(True, fair=fair, seconds=seconds, task_rows=rows, passes=passes)
        parts.append(row_of(name, alone, beside, f"{rate:.0f}"))
    parts += ["", "| all busy | FIFO rows/s, rows a batch | fair rows/s, rows a batch |", "|---|---|---|"]
    for tasks, clients in ((2, 8), (8, 2), (2, 48), (64, 1)):
        first, fair_one = (alike(tasks, clients, fair=fair, seconds=seconds / 10) for fair in (False, True))
        parts.append(f"| {tasks} tasks of {clients} clients | {first[0]:.0f}, {first[1]:.1f} | {fair_one[0]:.0f}, {fair_one[1]:.1f} |")
    return parts


def real(rounds: int, seconds: float, threads: int) -> list[str]:
    """The lines of the second part."""
    found = whole_path(rounds=rounds, seconds=seconds, threads=threads)
    title = f"\n## Whole path, replica_threads {threads}, {rounds} rounds of {seconds:g} s per condition\n"
    parts, inside = [title, QUIET.format(last="flood rows/s, refused")], []
    for arm in ARMS:
        alone, seen = found[arm, False], found[arm, True]
        parts.append(row_of(arm, alone.quiet_ms, seen.quiet_ms, f"{seen.flood_rows / seen.seconds:.0f}, {seen.flood_refused}"))
        inside.append(row_of(f"{arm}; as the gateway saw it", alone.inside_ms, seen.inside_ms, ""))
    counts = ", ".join(f"{arm} {'beside' if flood else 'alone'} {len(seen.quiet_ms)}" for (arm, flood), seen in found.items())
    return [*parts, *inside, "", f"Quiet requests: {counts}. {_machine()}"]


def report(rounds: int, seconds: float, virtual_s: float) -> str:
    """The text of the results."""
    parts = ["# Fairness\n", (__doc__ or "").strip(), "", *virtual(virtual_s)]
    return "\n".join([*parts, *real(rounds, seconds, 1), *real(rounds, seconds, 2), ""])


def _machine() -> str:
    load = Path("/proc/loadavg").read_text().split()[0]
    cores = subprocess.run(["nproc", "--all"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{cores} cores, load average {load} at the end."


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
