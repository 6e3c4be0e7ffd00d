"""The fleet's false-alarm budget: what it keeps to, beside budgets that are not shared, and what sharing costs in delay.

    flock /tmp/LOCK python tests/bench/bench_budget.py [--smoke] [--write]

Part one: fleets in which nothing changes. Every monitor of every task gets uniform p-values through the real detectors, looked at
after every event; tasks arrive and leave (a quarter stays throughout, a quarter leaves at half-time, a quarter arrives then, a
quarter arrives after a quarter of the time) and their traffic differs up to fourfold. Counted: alarms per fleet. `shared` gives the
tasks that live at the time the stated budget of the fleet, `unshared` gives each task the whole of it, `per look` tests after every event
whether the mean of the last 25 p-values is too low or high at level nominal / (tasks x monitors): Bonferroni over the tests of one
look, none over looks. Intervals are exact for a Poisson count (Garwood, 95%), which is too wide for a sum of independent alarms.
Part two: the same with captures and labels through `monitors.observe`. Part three: fleets in which one task in ten changed, at a
look; what e-BH then selects. Part four: the delay of one monitor by the size of the fleet.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # noqa: TID251  set for NumPy, before it is imported: one thread, so that runs compare
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # noqa: TID251

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from holdfast.domain import monitors, scorers
from holdfast.domain.fleet_budget import FDR, in_fleet, under
from holdfast.domain.scorers import NAMES
from holdfast.domain.statistics.e_bh import anytime_log_e, e_bh
from holdfast.domain.statistics.e_detector import Detector, advance, fresh, step_bets
from holdfast.domain.tasks import MonitoringPolicy
from holdfast.testing.builders import a_reference_window
from holdfast.testing.streams import a_stream

SIZES, PHASES, PHASE_EVENTS, WINDOW = (1, 10, 100, 300), 4, 100, 25
NOMINAL = 0.5
"""False alarms that the stated budget allows a fleet while its busiest task reads all events."""
RUN_LENGTH = PHASES * PHASE_EVENTS / NOMINAL
ARMS = ("shared", "unshared", "per look")
BETS = 2 * 8
RESULTS = Path(__file__).parent / "results" / "budget.md"


def lives(task: int, phase: int) -> bool:
    """Whether a task lives in a phase."""
    return phase in {0: range(4), 1: range(2), 2: range(2, 4), 3: range(1, 4)}[task % 4]


def events_of(task: int) -> int:
    """Events that a task reads in a phase: all, a half, a quarter."""
    return PHASE_EVENTS // (1, 2, 4)[task % 3]


def threshold(living: int) -> float:
    """Log threshold of one monitor among so many living tasks."""
    return float(np.log(RUN_LENGTH * living * len(NAMES)))


def per_look(p: NDArray[np.float64], level: float) -> bool:
    """Whether the mean of any window of ``p`` [n] lies beyond the two-sided normal limit of a uniform mean."""
    if len(p) < WINDOW:
        return False
    sums = np.cumsum(np.concatenate([[0.0], p]))
    z = ((sums[WINDOW:] - sums[:-WINDOW]) / WINDOW - 0.5) * np.sqrt(12 * WINDOW)
    return bool(np.abs(z).max() >= stats.norm.isf(level / 2))


def quiet_fleet(size: int, seed: int) -> tuple[list[int], float]:
    """Alarms of each arm in one fleet without a change, and what `shared` deposited."""
    random, counts, spent = np.random.default_rng([size, seed]), [0, 0, 0], 0.0
    living = [sum(lives(task, phase) for task in range(size)) for phase in range(PHASES)]
    for task in range(size):
        for _ in NAMES:
            shared, unshared, seen = fresh(1, BETS), fresh(1, BETS), []
            for phase in (phase for phase in range(PHASES) if lives(task, phase)):
                p = random.random((events_of(task), 1))
                bets, seqs = step_bets(p), range(phase * PHASE_EVENTS + 1, phase * PHASE_EVENTS + 1 + len(p))
                shared = advance(shared, bets, seqs, threshold(living[phase]))
                unshared = advance(unshared, bets, seqs, threshold(1))
                seen.append(p[:, 0])
            found = (shared.alarm_seq > 0, unshared.alarm_seq > 0, per_look(np.concatenate(seen), NOMINAL / (size * len(NAMES))))
            counts, spent = [c + f for c, f in zip(counts, found, strict=True)], spent + shared.spent
    return counts, spent


def real_fleet(seed: int, tasks: int = 5, events: int = 200) -> tuple[int, float]:
    """The same through the real monitors: three tasks, five from half-time on; alarms and deposits."""
    run_length, fitted = events / NOMINAL, scorers.fit(a_reference_window(row_count=400))
    alarms, spent = 0, 0.0
    for task in range(tasks):
        states = monitors.start(fitted)
        rows = a_stream(events, 10_000 + seed * tasks + task)
        for half, living in ((0, 3), (1, tasks)):
            if task >= living:
                continue
            policy = in_fleet(MonitoringPolicy(run_length_events=100), 1 / living, run_length)
            part = rows[half * events // 2 : (half + 1) * events // 2]
            states = monitors.observe(under(states, policy), fitted, [row.capture for row in part], policy)
            states = monitors.observe_labels(states, fitted, part, policy)
        alarms += sum(state.detector.alarm_seq > 0 for state in states.values())
        spent += sum(state.detector.spent for state in states.values())
    return alarms, spent


def changed_p(random: np.random.Generator, count: int, share: float) -> NDArray[np.float64]:
    """p-values [count, 1] of which a share comes from rows stranger than 95% of the reference."""
    p = random.random(count)
    return np.where(random.random(count) < share, 0.05 * p, p)[:, None]


def mixed_fleet(share_changed: float, seed: int, size: int = 100) -> tuple[int, int, int, int]:
    """Selected by e-BH, falsely selected, in alarm, changed: monitors of a fleet 100 events after a change in one monitor a task."""
    random = np.random.default_rng([7, seed])
    limit, moved = float(np.log(250_000 * size * len(NAMES))), int(size * share_changed)
    detectors: list[Detector] = []
    for task in range(size):
        for name in range(len(NAMES)):
            before, after = random.random((100, 1)), changed_p(random, 100, 0.3 if task < moved and name == 0 else 0.0)
            p = np.concatenate([before, after])
            detectors.append(advance(fresh(1, BETS), step_bets(p), range(1, 201), limit))
    picked = e_bh([anytime_log_e(min(0.0, d.evidence - limit), d.spent) for d in detectors], FDR)
    true = {task * len(NAMES) for task in range(moved)}
    return len(picked), len(set(picked) - true), sum(d.alarm_seq > 0 for d in detectors), moved


def delay(share: float, sizes: tuple[int, ...], seed: int, quiet: int = 200, horizon: int = 1_500) -> list[int]:
    """Events from a change to the alarm, by size of the fleet, at the default budget; -1 when it alarmed before."""
    random = np.random.default_rng([8, seed])
    bets = step_bets(np.concatenate([random.random((quiet, 1)), changed_p(random, horizon, share)]))
    seqs = range(1, quiet + horizon + 1)
    alarms = [advance(fresh(1, BETS), bets, seqs, float(np.log(250_000 * n * len(NAMES)))).alarm_seq for n in sizes]
    return [-1 if 0 < alarm <= quiet else (alarm - quiet if alarm else horizon) for alarm in alarms]


def interval(count: int, scale: float) -> str:
    """A count as a ratio, with its exact Poisson interval."""
    low = stats.chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    high = stats.chi2.ppf(0.975, 2 * count + 2) / 2
    return f"{count / scale:.2f} ({low / scale:.2f} to {high / scale:.2f})"


def quiet_table(pool: ProcessPoolExecutor, replicates: int) -> tuple[list[str], bool]:
    """The first two tables, and whether `shared` kept to its budget."""
    lines = ["| tasks | arm | alarms in all fleets | realised / stated (95% interval) |", "|---|---|---|---|"]
    kept = True
    for size in SIZES:
        found = list(pool.map(partial(quiet_fleet, size), range(replicates), chunksize=4))
        for arm, name in enumerate(ARMS):
            count = sum(counts[arm] for counts, _ in found)
            lines.append(f"| {size} | {name} | {count} in {replicates} | {interval(count, NOMINAL * replicates)} |")
            print(lines[-1], flush=True)
        count, spent = sum(counts[0] for counts, _ in found), sum(spent for _, spent in found)
        lines.append(f"| {size} | shared, over what it deposited ({spent / replicates:.3f} a fleet) | {count} | {interval(count, spent)} |")
        print(lines[-1], flush=True)
        kept = kept and stats.chi2.ppf(0.025, 2 * max(count, 1)) / 2 <= spent
    return lines, bool(kept)


def real_table(pool: ProcessPoolExecutor, replicates: int) -> list[str]:
    """Through the real monitors."""
    found = list(pool.map(real_fleet, range(replicates), chunksize=2))
    count, spent = sum(alarms for alarms, _ in found), sum(spent for _, spent in found)
    lines = ["| fleets | alarms | realised / stated | realised / deposited |", "|---|---|---|---|"]
    lines.append(f"| {replicates} | {count} | {interval(count, NOMINAL * replicates)} | {interval(count, spent)} |")
    print(lines[-1], flush=True)
    return lines


def mixed_table(pool: ProcessPoolExecutor, replicates: int) -> list[str]:
    """What e-BH selects, and the boundary that opens alerts, side by side."""
    lines = ["| tasks changed of 100 | changed monitors suspected | in alarm | false share of the suspected (mean) |", "|---|---|---|---|"]
    for share in (0.0, 0.1, 0.5, 1.0):
        found = np.array(list(pool.map(partial(mixed_fleet, share), range(replicates), chunksize=2)))
        picked, false, alarms, moved = found.T
        true = f"{(picked - false).sum() / moved.sum():.0%} | {alarms.sum() / moved.sum():.0%}" if share else f"- | {alarms.sum()} alarms"
        lines.append(f"| {100 * share:.0f} | {true} | {(false / np.maximum(1, picked)).mean():.3f} |")
        print(lines[-1], flush=True)
    return lines


def delay_table(pool: ProcessPoolExecutor, replicates: int) -> list[str]:
    """Median delay by size of fleet."""
    lines = ["| strange rows | " + " | ".join(f"{n} tasks" for n in SIZES) + " |", "|---" * (len(SIZES) + 1) + "|"]
    for share in (0.1, 0.2, 0.4):
        found = np.array(list(pool.map(partial(delay, share, SIZES), range(replicates), chunksize=8)))
        cells = [f"{np.median(column[column >= 0]):.0f}" for column in found.T]
        lines.append(f"| {share:.0%} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return lines


def main() -> int:
    """Run all parts; 1 when the alarms of `shared` are surely more than its deposits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="A few replicates, to see that it runs.")
    parser.add_argument("--write", action="store_true", help=f"Write {RESULTS.name}.")
    parser.add_argument("--replicates", type=int, default=200, help="Fleets of each size.")
    asked = parser.parse_args()
    many, begin = 4 if asked.smoke else asked.replicates, time.monotonic()
    with ProcessPoolExecutor(2) as pool:
        quiet, kept = quiet_table(pool, many)
        real, delays, mixed = real_table(pool, many), delay_table(pool, many), mixed_table(pool, max(4, many // 2))
    text = "\n".join([
        "# The fleet's false-alarm budget", "",
        f"`python tests/bench/bench_budget.py --replicates {many} --write`; {len(NAMES)} monitors a task, seeds fixed, "
        f"{time.monotonic() - begin:.0f} s on two cores.", "",
        f"## Nothing changes: the busiest task reads {PHASES * PHASE_EVENTS} events, stated {NOMINAL} false alarms a fleet", "",
        "Tasks arrive and leave, traffic differs up to fourfold, looked at after every event. `unshared`: each task has the whole budget.",
        "`per look`: Bonferroni over all tests of one look, a look after each event.", "", *quiet, "",
        f"## The same through `monitors.observe`: three tasks, then five, 200 events each, stated {NOMINAL}", "", *real, "",
        f"## 100 events after 30% of the rows became strange to one monitor: suspected by e-BH at {FDR}, and in alarm", "",
        "Fleet of 100 tasks, default budget.", "", *mixed, "",
        "## The price: median events from the change to the alarm, default budget", "", *delays, "",
    ])  # fmt: skip
    if asked.write and not asked.smoke:
        RESULTS.write_text(text)
    print(f"\n{time.monotonic() - begin:.0f} s")
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
