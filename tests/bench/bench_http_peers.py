"""Holdfast over HTTP beside what else serves a small classifier or its embeddings, all with the same model inside.

    python tests/bench/bench_http_peers.py [--smoke] [--write] [--texts FILE.csv] [--environments FOLDER]

One adapter (LoRA rank 8 on the last three layers, 8 labels) on MiniLM, answered by Holdfast's own engine in every classifier here, one
pass at a time with one thread: what differs is the serving. Each server answers twice: with that model, and with one that returns a
constant of the same shape at once, so that its CPU per request is read off and not computed as a difference. CPU is of the whole
process tree, the client not in it. Closed loop: 16 clients. Best QPS: Poisson arrivals at a rising rate, then the ratio between the
last rate that held and the first that did not is halved until it is under 6%; latency counts from the moment at which a request was
meant to leave. All rounds are interleaved, seeds are the numbers of the rounds. Peers that Holdfast's environment lacks have pinned
environments of their own (`peers/*.txt`), made on first use. ``--texts``: column `text` of a CSV file (Banking77's test file gives the
lengths that the figures are about); else texts are made up.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.bench_engine import read_texts
from tests.bench.embedding_rates import Offline, offline
from tests.bench.http_load import Search, closed_loop, open_loop
from tests.bench.peer_roster import start_all
from tests.bench.peer_servers import Arm, Servers
from tests.bench.serving_load import cpu_seconds

RESULTS = Path(__file__).parent / "results" / "http_peers.md"
CLIENTS, BOUND_MS = 16, 50.0
SWITCH_S = 2.2
"""Holdfast keeps way free for whoever asked within 2 s; the tasks of two kinds of round shall not meet."""


class Plan:
    """How long everything takes."""

    def __init__(self, smoke: bool) -> None:
        self.rounds = {"null": 2, "real": 1, "embed": 1} if smoke else {"null": 5, "real": 3, "embed": 5}
        self.round_s = 0.4 if smoke else 1.5
        self.searches, self.steps, self.step_s = (1, 2, 1.0) if smoke else (2, 7, 3.0)
        self.idle_s = 1.0 if smoke else 5.0
        self.texts = 64 if smoke else 512


def note(arm: Arm, **figures: float) -> None:
    """Keep figures of a round."""
    for name, value in figures.items():
        arm.figures.setdefault(name, []).append(value)


def closed_rounds(arms: Sequence[Arm], what: str, texts: Sequence[str], plan: Plan) -> None:
    """Rate, latency and CPU per request of each server, in interleaved rounds, there and back."""
    those = [arm for arm in arms if what in arm.ask]
    requests = {arm.name + arm.setting: [arm.ask[what](text) for text in texts] for arm in those}
    time.sleep(SWITCH_S)
    rates = {}
    for arm in those:
        load = closed_loop(arm.port, requests[arm.name + arm.setting], clients=CLIENTS, count=96)
        rates[id(arm)] = load.rate
        if what == "real":
            arm.sample = load.body[:200].decode(errors="replace")
    for turn in range(plan.rounds[what]):
        for arm in those if turn % 2 else reversed(those):
            count = min(max(int(rates[id(arm)] * plan.round_s), 64), 6000)
            before = cpu_seconds(arm.pid())
            load = closed_loop(arm.port, requests[arm.name + arm.setting], clients=CLIENTS, count=count)
            cpu_ms = (cpu_seconds(arm.pid()) - before) / max(len(load.latencies_ms), 1) * 1e3
            p50, p99 = load.percentile(50), load.percentile(99)
            names = {"cpu": cpu_ms, "rate": load.rate, "p50": p50, "p99": p99, "failed": float(load.failed)}
            note(arm, **{f"{what} {name}": value for name, value in names.items()})


def idle(arms: Sequence[Arm], seconds: float) -> None:
    """CPU that each server takes while nobody asks, ms per second."""
    before = [cpu_seconds(arm.pid()) for arm in arms]
    time.sleep(seconds)
    for arm, then in zip(arms, before, strict=True):
        note(arm, idle=(cpu_seconds(arm.pid()) - then) / seconds * 1e3)


def best_rates(arms: Sequence[Arm], texts: Sequence[str], plan: Plan) -> None:
    """The best rate at p99 <= 50 ms of each server, in interleaved searches."""
    those = [arm for arm in arms if "real" in arm.ask]
    requests = {id(arm): [arm.ask["real"](text) for text in texts] for arm in those}
    time.sleep(SWITCH_S)
    for turn in range(plan.searches):
        guesses = {id(arm): median(arm.figures.get("best", [0.6 * median(arm.figures["real rate"])])) or 4.0 for arm in those}
        searches = {id(arm): Search(guesses[id(arm)], bound_ms=BOUND_MS, steps=plan.steps) for arm in those}
        step = 0
        while any(search.rate() for search in searches.values()):
            for arm in those:
                if (rate := searches[id(arm)].rate()) is not None:
                    seconds = min(max(plan.step_s, 150 / rate), 1.5 * plan.step_s)
                    load = open_loop(arm.port, requests[id(arm)], rate=rate, seconds=seconds, seed=100 * turn + step)
                    searches[id(arm)].told(rate, load)
            step += 1
        for arm in those:
            note(arm, best=searches[id(arm)].held)


def middle(values: Sequence[float], digits: int = 2) -> str:
    """Median, and the least and the greatest of the rounds."""
    if not values:
        return "-"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def over(these: Sequence[float], those: Sequence[float]) -> str:
    """Ratio of medians, and the least and the greatest ratio of rounds that followed each other."""
    if not these or not those or not median(those) or not median(these):
        return "-"
    ratios = [a / b for a, b in zip(these, those, strict=True) if b]
    return f"{median(these) / median(those):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def table(head: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """In Markdown."""
    width = head.count("|") + 1
    return [f"| {head} |", "|" + "---|" * width, *(f"| {' | '.join(row)} |" for row in rows), ""]


def cost_table(arms: Sequence[Arm]) -> list[str]:
    """Server CPU per request less the model."""
    rows, own = [], arms[0].figures["null cpu"]
    for arm in (one for one in arms if "null" in one.ask):
        f = arm.figures
        ratio = over(f["null cpu"], own) if arm is not arms[0] else "1"
        rows.append([arm.name, arm.setting, middle(f["null cpu"], 3), ratio, f"{f['idle'][0]:.0f}", middle(f["null rate"], 0),
                     f"{median(f['null p50']):.1f}", f"{median(f['null p99']):.1f}", f"{sum(f['null failed']):.0f}"])  # fmt: skip
    head = (
        "server | setting | server CPU ms/request less the model | over Holdfast's | idle CPU ms/s | requests/s | p50 ms | p99 ms | failed"
    )
    return ["## Server CPU per request less the model (null model)", "", *table(head, rows)]


def rate_table(arms: Sequence[Arm]) -> list[str]:
    """Best QPS at p99 <= 50 ms, and what the closed loop saw."""
    rows, own = [], arms[0].figures
    for arm in (one for one in arms if "real" in one.ask):
        f = arm.figures
        ratio = over(own["best"], f["best"]) if arm is not arms[0] else "1"
        rows.append([arm.name, arm.setting, middle(f["best"], 0), ratio, middle(f["real rate"], 0), f"{median(f['real p50']):.0f}",
                     f"{median(f['real p99']):.0f}", f"{median(f['real cpu']):.2f}", f"{sum(f['real failed']):.0f}"])  # fmt: skip
    head = "server | setting | best QPS, p99 <= 50 ms | Holdfast's over it | 16 clients: requests/s | p50 | p99 | CPU ms/request | failed"
    return ["## With the model: best QPS at p99 <= 50 ms, and 16 closed-loop clients", "", *table(head, rows)]


def embedding_table(arms: Sequence[Arm], found: Offline) -> list[str]:
    """Embeddings online, beside useful FLOP/s offline."""
    rows, own = [], arms[0].figures["embed rate"]
    for arm in (one for one in arms if "embed" in one.ask):
        f = arm.figures
        ratio = over(own, f["embed rate"]) if arm is not arms[0] else "1"
        rows.append([arm.name, arm.setting, middle(f["embed rate"], 0), ratio, f"{median(f['embed p50']):.0f}",
                     f"{median(f['embed p99']):.0f}",
                     middle(f["embed cpu"]), f"{sum(f['embed failed']):.0f}"])  # fmt: skip
    head = "server | setting | requests/s | Holdfast's over it | p50 | p99 ms | CPU ms/request | failed"
    lines = ["## Embeddings online, 16 closed-loop clients, one text a request", "", *table(head, rows)]
    return [*lines, *found.lines()]


def machine() -> str:
    """What this ran on, and what with."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    names = ("ray", "mlflow", "fastapi", "uvicorn", "torch", "transformers", "onnxruntime")
    said = ", ".join(f"{name} {version(name)}" for name in names)
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"Machine: {os.cpu_count()} x {model}; load average {load}; Python {platform.python_version()}; {said}"


def main(given: argparse.Namespace) -> None:
    """Run and print."""
    plan, began = Plan(given.smoke), time.monotonic()
    texts = read_texts(given.texts, plan.texts)
    lines = [__doc__ or "", machine()]
    stages: list[tuple[str, Callable[[], None]]] = []
    with Servers(given.environments) as servers:
        found = offline(servers, texts, repeats=1 if given.smoke else 5)
        arms, versions = start_all(servers)
        stages += [("idle", lambda: idle(arms, plan.idle_s))]
        stages += [(what, lambda what=what: closed_rounds(arms, what, texts, plan)) for what in plan.rounds]  # type: ignore[misc]
        stages += [("best rates", lambda: best_rates(arms, texts, plan))]
        for name, stage in stages:
            print(f"{time.monotonic() - began:.0f} s: {name}", file=sys.stderr, flush=True)
            stage()
        lines += [f"In their own environments: {versions}", f"Texts: {found.about}; load average at the end {os.getloadavg()[0]:.1f}", ""]
        lines += cost_table(arms) + rate_table(arms) + embedding_table(arms, found)
        lines += [f"- not measured: {name}: {why}" for name, why in servers.absent.items()]
        lines += [f"- whole bench: {time.monotonic() - began:.0f} s"]
    print("\n".join(lines))
    if given.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("# Serving beside its peers\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="two minutes, to see that it runs")
    parser.add_argument("--write", action="store_true", help="write the tables to tests/bench/results/http_peers.md")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "holdfast-bench", help="where environments are kept")
    main(parser.parse_args())
