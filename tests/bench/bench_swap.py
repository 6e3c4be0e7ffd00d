"""Hot swaps under load: failed answers, answers of a wrong adapter, latency during a swap beside latency between swaps.

    python tests/bench/bench_swap.py [--smoke] [--write] [--swaps N]

The real path: MiniLM with LoRA adapters on Ray Serve, eight closed-loop clients over HTTP with capture on. A swap is what a promotion
does: the assignment changes, replicas load and prove the version, the roll-out (every second, as in the worker) points the table at
it, the gateway follows. Every third swap goes back to a version that is still loaded. A wrong answer is a label that does not
belong to the adapter that the answer names; a stale one is of an old version on a request that was sent after a newer one had
answered. "During" are requests under way between the assignment and a quarter of a second after its first answer. The peer, after it
on the same machine: the same engine in a Ray Serve deployment behind Serve's own proxy, swapped by a new `user_config`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.serving_load import Load, Seen, drive, make_adapters, texts
from tests.bench.swap_peer import Peer
from tests.integration.serving.stack import KEY, Stack, free_ports, wait_for

from holdfast.backends.adapter_store import FolderAdapterStore
from holdfast.bootstrap import now
from holdfast.domain.ids import TaskName
from holdfast.flows.roll_out import roll_out
from holdfast.ports import House
from holdfast.testing.builders import a_house

RESULTS = Path(__file__).parent / "results" / "swap.md"
CLIENTS = 8
AFTER_S = 0.25
Window = tuple[float, float]
"""From the assignment to the first answer of the new version (``time.perf_counter``)."""


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

    def answers(self, since: int = 0) -> list[Seen]:
        """Every answer so far, or those after so many rounds."""
        return [answer for load in self.loads[since:] for answer in load.answers]

    def end(self) -> None:
        """Swaps are done: send what is left to be sent."""
        self.swaps_done = True
        self.join()

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


def main(swaps: int, count: int, peer_swaps: int, write: bool) -> None:
    """Run and print."""
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
        ours = Traffic(stack.settings.ports.gateway, count)
        ours.start()
        windows = swap_through(ours, planned(digests, swaps), lambda digest: stack.assign("task", digest, publish=False))
        ours.end()
        worker.stopped.set()
        stored = count_stored(stack, ours)
    (port,) = free_ports(1)
    with Peer(stack.settings.folder / "peer", stack.settings.folder / "adapters", port=port, first=digests[0]) as peer:
        theirs = Traffic(port, count // 10)
        theirs.start()
        applied: list[float] = []
        theirs_windows = swap_through(theirs, planned(digests, peer_swaps), lambda digest: applied.append(peer.swap(digest)))
        theirs.end()
    lines = [__doc__ or "", "| | Holdfast | Ray Serve `user_config` |", "|---|---|---|"]
    mine, peers = figures(ours, digests, windows) | {"captures stored": f"{stored}"}, figures(theirs, digests, theirs_windows)
    lines += [f"| {name} | {value} | {peers.get(name, '–')} |" for name, value in mine.items()]
    lines += ["", f"Ray Serve called a change applied after {np.median(applied):.1f} s (median), {max(applied):.1f} s (worst)."]
    print("\n".join(lines))
    if write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("# Hot swap\n\n" + "\n".join(lines) + "\n")


def planned(digests: list[str], swaps: int) -> list[tuple[str, str]]:
    """Kind and digest of each swap: forward twice, back once."""
    plan: list[tuple[str, str]] = []
    at = 0
    for turn in range(swaps):
        at += -1 if turn % 3 == 2 else 1
        known = any(digest == digests[at] for _, digest in plan) or at == 0
        plan.append(("rollback" if known else "new version", digests[at]))
    return plan


def swap_through(traffic: Traffic, plan: list[tuple[str, str]], swap: Callable[[str], object]) -> dict[str, list[Window]]:
    """Swap, wait for the first new answer, let traffic flow for a while, go on."""
    found: dict[str, list[Window]] = {"new version": [], "rollback": []}
    for kind, digest in plan:
        before, rounds = traffic.sent, len(traffic.loads)
        wait_for(partial(_sent, traffic, before + 160), "traffic flows", 300)
        began = time.perf_counter()
        swap(digest)
        wait_for(partial(_answers, traffic, digest, began, rounds), "the new version answers", 300)
        answered = first(traffic, digest, began, rounds)
        assert answered is not None
        found[kind].append((began, answered))
    return found


def _sent(traffic: Traffic, count: int) -> bool:
    assert traffic.is_alive(), "the clients ended with the error above"
    return traffic.sent >= count


def _answers(traffic: Traffic, digest: str, after: float, rounds: int) -> bool:
    return first(traffic, digest, after, rounds) is not None


def first(traffic: Traffic, digest: str, after: float, rounds: int) -> float | None:
    """When the first answer of ``digest`` was had, of the requests sent after an instant, that is after so many rounds."""
    return min((seen.received for seen in traffic.answers(rounds) if seen.digest == digest and seen.sent > after), default=None)


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


def figures(traffic: Traffic, digests: list[str], windows: dict[str, list[Window]]) -> dict[str, str]:
    """The column of one arm."""
    every = [window for kind in windows.values() for window in kind]
    found = {
        "requests": f"{traffic.sent}", "swaps": f"{len(every)}", "failed": f"{sum(load.failed for load in traffic.loads)}",
        "answers of a wrong adapter": f"{wrong(traffic, digests)}", "answers of an older version after a newer one": f"{stale(traffic)}",
    }  # fmt: skip
    during, steady = split(traffic.answers(), every)
    for name, some in (("between swaps", steady), ("during a swap", during)):
        p50, p99 = np.percentile(some, [50, 99])
        found[f"p50 / p99 / worst {name}, ms (requests)"] = f"{p50:.0f} / {p99:.0f} / {max(some):.0f} ({len(some)})"
    found["p99 during over between (95 %)"] = ratio(during, steady)
    for kind, some_windows in windows.items():
        if some_windows:
            seconds = [answered - began for began, answered in some_windows]
            found[f"change to first new answer, {kind}, s: median / worst"] = f"{np.median(seconds):.2f} / {max(seconds):.2f}"
    return found


def split(answers: list[Seen], windows: list[Window]) -> tuple[list[float], list[float]]:
    """Latencies, ms, of requests that were under way during a swap, and of the rest."""
    parts: tuple[list[float], list[float]] = ([], [])
    for seen in answers:
        within = any(seen.received >= began and seen.sent <= ended + AFTER_S for began, ended in windows)
        parts[0 if within else 1].append((seen.received - seen.sent) * 1e3)
    return parts


def ratio(during: list[float], steady: list[float]) -> str:
    """Of the p99s, with a bootstrap interval."""
    rng = np.random.default_rng(0)
    draws = [np.percentile(rng.choice(during, len(during)), 99) / np.percentile(rng.choice(steady, len(steady)), 99) for _ in range(1000)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{np.percentile(during, 99) / np.percentile(steady, 99):.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a minute, to see that it runs")
    parser.add_argument("--write", action="store_true", help="write the table to tests/bench/results/swap.md")
    parser.add_argument("--swaps", type=int, default=100, help="of ours; the peer, which takes longer, does a tenth")
    given = parser.parse_args()
    swaps = 4 if given.smoke else given.swaps
    main(swaps, 100 if given.smoke else 10_000, max(2, swaps // 10), given.write)
