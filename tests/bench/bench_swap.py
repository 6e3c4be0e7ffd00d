"""Hot swaps under load: failed answers, answers of a wrong adapter, and how long from the promotion to the first new answer.

    python tests/bench/bench_swap.py [--smoke] [--write]

The real path: MiniLM with LoRA adapters on Ray Serve, eight closed-loop clients over HTTP with capture on. A swap is what a promotion
does: the assignment changes, replicas load and prove the version, the roll-out (every second, as in the worker) points the table at
it, the gateway follows. Every third swap goes back to a version that is still loaded. A wrong answer is a label that does not
belong to the adapter that the answer names, or an old version on a request that was sent after a newer one had answered.
The peer is what Ray Serve offers for this, a redeploy with a new `user_config`: measured beside other faults in an earlier study at
43 to 61 s to apply on a busy machine, and an outage where the new version cannot be loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.serving_load import Load, Seen, drive, make_adapters, texts
from tests.integration.serving.stack import KEY, Stack, wait_for

from holdfast.backends.adapter_store import FolderAdapterStore
from holdfast.bootstrap import now
from holdfast.domain.ids import TaskName
from holdfast.flows.roll_out import roll_out
from holdfast.ports import House
from holdfast.testing.builders import a_house

RESULTS = Path(__file__).parent / "results" / "swap.md"
CLIENTS = 8


class Traffic(threading.Thread):
    """Requests in small rounds until enough were sent and the swaps are done."""

    def __init__(self, port: int, count: int) -> None:
        super().__init__()
        self.port, self.count, self.swaps_done = port, count, False
        self.loads: list[Load] = []

    @property
    def sent(self) -> int:
        """Requests so far."""
        return sum(len(load.latencies_ms) + load.failed for load in self.loads)

    def answers(self) -> list[Seen]:
        """Every answer so far."""
        return [answer for load in list(self.loads) for answer in list(load.answers)]

    def run(self) -> None:
        """Send."""
        while self.sent < self.count or not self.swaps_done:
            self.loads.append(asyncio.run(drive(self.port, KEY, tasks=["task"], lines=texts(400), clients=CLIENTS, count=80)))


class RollOut(threading.Thread):
    """The worker's part."""

    def __init__(self, house: House) -> None:
        super().__init__(daemon=True)
        self.house, self.stopped = house, threading.Event()

    def run(self) -> None:
        """Reconcile every second."""
        while not self.stopped.wait(1.0):
            roll_out(self.house, silence_s=15.0)


def main(smoke: bool, write: bool) -> None:
    """Run and print."""
    swaps, count = (4, 100) if smoke else (20, 10_000)
    with Stack(Path(tempfile.mkdtemp(prefix="hf-bench-")), application="holdfast.serving.app:build") as stack:
        assert stack.database is not None
        store = FolderAdapterStore(stack.settings.folder / "adapters")
        digests = [str(d) for d in make_adapters(stack.settings.folder / "scratch", store, swaps // 2 + 1)]
        stack.assign("task", digests[0])
        stack.start_ray()
        stack.start_gateway()
        wait_for(stack.ready, "the gateway is ready", 300)
        worker = RollOut(a_house(unit_of_work=stack.database.unit_of_work, log=stack.database.log(), clock=now))
        worker.start()
        traffic = Traffic(stack.settings.ports.gateway, count)
        traffic.start()
        seconds = swap_through(stack, traffic, digests, swaps)
        traffic.swaps_done = True
        traffic.join()
        worker.stopped.set()
        stored = count_stored(stack, traffic)
    print_out(traffic, digests, seconds, stored=stored, write=write)


def swap_through(stack: Stack, traffic: Traffic, digests: list[str], swaps: int) -> dict[str, list[float]]:
    """Swap, wait for the first new answer, let the old one be tried for, go on."""
    found: dict[str, list[float]] = {"new version": [], "rollback": []}
    at, plan = 0, []
    for turn in range(swaps):  # forward twice, back once
        at += -1 if turn % 3 == 2 else 1
        plan.append(("rollback" if turn % 3 == 2 else "new version", digests[at]))
    for kind, digest in plan:
        before = traffic.sent
        wait_for(lambda before=before: traffic.sent >= before + 50, "traffic flows", 300)  # type: ignore[misc]
        began = time.perf_counter()
        stack.assign("task", digest, publish=False)
        wait_for(lambda began=began, digest=digest: first(traffic, digest, began) is not None, "the new version answers", 300)  # type: ignore[misc]
        answered = first(traffic, digest, began)
        assert answered is not None
        found["rollback" if digest in [d for _, d in plan[: plan.index((kind, digest))]] else kind].append(answered - began)
    return found


def first(traffic: Traffic, digest: str, after: float) -> float | None:
    """When the first answer of ``digest`` was had, of the requests sent after an instant."""
    return min((seen.received for seen in traffic.answers() if seen.digest == digest and seen.sent > after), default=None)


def wrong(traffic: Traffic, digests: list[str]) -> int:
    """Answers whose label is not one of the adapter they name."""
    return sum(int(seen.label.split(":")[0]) != digests.index(seen.digest) for seen in traffic.answers())


def stale(traffic: Traffic) -> int:
    """Answers of an older generation than one that was had before they were asked for."""
    answers = traffic.answers()
    had = sorted((seen.received, seen.generation) for seen in answers)
    count = newest = at = 0
    for seen in sorted(answers, key=lambda one: one.sent):
        while at < len(had) and had[at][0] < seen.sent:
            newest = max(newest, had[at][1])
            at += 1
        count += seen.generation < newest
    return count


def count_stored(stack: Stack, traffic: Traffic) -> int:
    """Captures in the log, once it has all of them."""
    assert stack.database is not None
    log = stack.database.log()

    def stored() -> int:
        seq, total = 0, 0
        while page := log.after(TaskName("task"), seq, 5_000):
            seq, total = page[-1].seq, total + len(page)
        return total

    wait_for(lambda: stored() >= len(traffic.answers()), "every capture is stored", 120)
    return stored()


def print_out(traffic: Traffic, digests: list[str], seconds: dict[str, list[float]], *, stored: int, write: bool) -> None:
    """The figures."""
    latencies = [ms for load in traffic.loads for ms in load.latencies_ms]
    failed = sum(load.failed for load in traffic.loads)
    lines = [__doc__ or "", "| | |", "|---|---|", f"| requests | {traffic.sent} |", f"| swaps | {sum(map(len, seconds.values()))} |"]
    lines += [f"| failed | {failed} |", f"| answers of a wrong adapter | {wrong(traffic, digests)} |"]
    lines += [f"| answers of an older version after a newer one | {stale(traffic)} |", f"| captures stored | {stored} |"]
    lines += [f"| p50 / p99 / worst, ms | {np.percentile(latencies, 50):.0f} / {np.percentile(latencies, 99):.0f} / {max(latencies):.0f} |"]
    for kind, values in seconds.items():
        if values:
            name = f"assignment to first new answer, {kind}, s: median / worst of {len(values)}"
            lines.append(f"| {name} | {np.median(values):.2f} / {max(values):.2f} |")
    print("\n".join(lines))
    if write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("# Hot swap\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a minute, to see that it runs")
    parser.add_argument("--write", action="store_true", help="write the table to tests/bench/results/swap.md")
    given = parser.parse_args()
    main(given.smoke, given.write)
