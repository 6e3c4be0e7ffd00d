"""How soon a rise of the error rate is seen: the quality monitor beside the oracle CUSUM and river's detectors, at equal run length.

    python tests/bench/bench_quality_delay.py [--smoke] [--write] [--environments FOLDER]

Streams of 0/1 errors at 8%; after 500 events the rate changes. Every detector is tuned, on streams without a change, to the same
measured average run length (events until a false alarm), so that delays compare. Delay: events from the change to the alarm, over
replicates without an alarm before it; one that saw none within the horizon counts as the horizon. Intervals: 95%, bootstrap over
replicates; ratios by pairs of the same streams.

  ours       the monitor as it runs, with a reference of so many calibration rows: it does not know that 8% is normal, it ranks
  oracle     CUSUM (Page, 1954) that knows both rates; of a gradual or recurring change the last one
  river      ADWIN (delta tuned) and Page-Hinkley (threshold tuned, upward), in an environment of their own
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from numpy.typing import NDArray
from tests.bench.peer_servers import environment

from holdfast.domain.bets import bet_count, bets_on
from holdfast.domain.statistics import e_detector
from holdfast.domain.statistics.conformal import p_values

RESULTS = Path(__file__).parent / "results" / "quality_delay.md"
PEERS = Path(__file__).parent / "peers" / "river_detectors.py"
USUAL, QUIET, HORIZON = 0.08, 500, 3_000
REFERENCES = (500, 5_000)
Errors = NDArray[np.uint8]
Trace = NDArray[np.float64]


class Plan:
    """How many streams of what length."""

    def __init__(self, smoke: bool) -> None:
        self.run_length = 2_000.0 if smoke else 5_000.0
        self.null_streams, self.null_events = (10, 4_000) if smoke else (150, 10_000)
        self.replicates = 6 if smoke else 200


def rates() -> dict[str, tuple[float, NDArray[np.float64]]]:
    """Case to the oracle's changed rate and the error rate [HORIZON] of each event after the change."""
    steps = np.arange(HORIZON)
    steady = {f"8% to {rate:.0%}": (rate, np.full(HORIZON, rate)) for rate in (0.10, 0.12, 0.16, 0.30)}
    return steady | {
        "8% to 16% over 1,000 events": (0.16, USUAL + 0.08 * np.minimum(steps / 1_000, 1.0)),
        "16% in 200 of every 400 events": (0.16, np.where(steps % 400 < 200, 0.16, USUAL)),
    }


def drawn(random: np.random.Generator, rate: NDArray[np.float64], count: int) -> Errors:
    """``count`` streams of errors at the rates [events]."""
    return (random.random((count, len(rate))) < rate).astype(np.uint8)


def ours(stream: Errors, reference: Errors, random: np.random.Generator) -> Trace:
    """Log evidence [events] of the quality monitor, by the functions that it is made of."""
    counts, bins = np.bincount(reference, minlength=2).astype(np.int64), stream.astype(np.int64)
    p, _ = p_values(counts, bins, random.random(len(stream)))
    bets_of_all, _ = bets_on("quality", p[:, None], bins[:, None], counts[None], np.empty((1, 0)))
    detector, trace = e_detector.fresh(1, bet_count("quality")), np.empty(len(stream))
    for i, bets in enumerate(bets_of_all):
        detector = e_detector.advance(detector, bets[None], [i + 1], np.inf)
        trace[i] = detector.evidence
    return trace


def cusum(stream: Errors, rate: float) -> Trace:
    """Page's statistic [events] for a change from USUAL to ``rate``."""
    gains = np.where(stream == 1, np.log(rate / USUAL), np.log((1 - rate) / (1 - USUAL)))
    total = np.concatenate([[0.0], np.cumsum(gains)])
    found: Trace = total[1:] - np.minimum.accumulate(total)[:-1]
    return found


def first(trace: Trace, threshold: float) -> int:
    """Event, from 1, at which a trace reaches the threshold; 0 for none."""
    above = trace >= threshold
    return int(above.argmax()) + 1 if above.any() else 0


def run_length(traces: list[Trace], threshold: float) -> float:
    """Events over alarms, each stream until its first."""
    alarms = [first(trace, threshold) for trace in traces]
    return sum(a or len(t) for a, t in zip(alarms, traces, strict=True)) / max(sum(a > 0 for a in alarms), 0.5)


def tuned(traces: list[Trace], wanted: float) -> float:
    """The least threshold whose run length is at least ``wanted``."""
    low, high = 0.0, 60.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if run_length(traces, middle) >= wanted else (middle, high)
    return high


def delays(alarms: list[int]) -> NDArray[np.float64]:
    """Delay of each replicate; NaN where an alarm came before the change."""
    return np.array([float(HORIZON) if a == 0 else a - QUIET if a > QUIET else np.nan for a in alarms])


def cell(these: NDArray[np.float64]) -> str:
    """Mean delay, its interval, and how many had an alarm before."""
    kept = these[~np.isnan(these)]
    if not kept.size:
        return "-"
    picks = np.random.default_rng(1).integers(0, len(kept), (500, len(kept)))
    low, high = np.quantile(kept[picks].mean(axis=1), [0.025, 0.975])
    return f"{kept.mean():.0f} ({low:.0f} to {high:.0f})"


def ratio(these: NDArray[np.float64], those: NDArray[np.float64]) -> str:
    """Ratio of mean delays over the replicates that both kept."""
    both = ~(np.isnan(these) | np.isnan(those))
    a, b = these[both], those[both]
    if not a.size:
        return "-"
    picks = np.random.default_rng(1).integers(0, len(a), (500, len(a)))
    low, high = np.quantile(a[picks].mean(axis=1) / b[picks].mean(axis=1), [0.025, 0.975])
    return f"{a.mean() / b.mean():.2f} ({low:.2f} to {high:.2f})"


def peers(null: Errors, cases: dict[str, Errors], wanted: float, folder: Path) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Detector of river to case to delays."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "streams.npz"
        np.savez(path, allow_pickle=False, null=null, **{f"case {i}": rows for i, rows in enumerate(cases.values())})
        done = subprocess.run(
            [environment("river", folder, torch=False), PEERS, path, str(wanted)], stdout=subprocess.PIPE, text=True, check=True
        )
    told = json.loads(done.stdout)
    for name, one in told.items():
        print(f"  {name}: setting {one['setting']:.3g}, run length {one['run length']:.0f}", flush=True)
    return {name: {case: delays(one["alarms"][f"case {i}"]) for i, case in enumerate(cases)} for name, one in told.items()}


def measured(plan: Plan, folder: Path) -> list[str]:
    """Lines of the table."""
    random, usual = np.random.default_rng(2_026), np.full(plan.null_events, USUAL)
    null = drawn(random, usual, plan.null_streams)
    cases = {name: np.hstack([drawn(random, np.full(QUIET, USUAL), plan.replicates), drawn(random, after, plan.replicates)])
             for name, (_, after) in rates().items()}  # fmt: skip
    found: dict[str, dict[str, NDArray[np.float64]]] = {}
    for size in REFERENCES:
        reference = np.full(size, USUAL)
        traces = [ours(stream, drawn(random, reference, 1)[0], random) for stream in null]
        level = tuned(traces, plan.run_length)
        print(f"  ours, {size} rows: A = {np.exp(level):.0f}, run length {run_length(traces, level):.0f}", flush=True)
        found[f"ours, {size:,} rows"] = {
            name: delays([first(ours(stream, drawn(random, reference, 1)[0], random), level) for stream in rows])
            for name, rows in cases.items()
        }
    oracle = {}
    for name, (rate, _) in rates().items():
        level = tuned([cusum(stream, rate) for stream in null], plan.run_length)
        oracle[name] = delays([first(cusum(stream, rate), level) for stream in cases[name]])
    found["oracle CUSUM"] = oracle
    found |= peers(null, cases, plan.run_length, folder)
    lines = ["| change | " + " | ".join(found) + " | ours over oracle | ours over ADWIN |", "|---" * (len(found) + 3) + "|"]
    best = found[f"ours, {REFERENCES[-1]:,} rows"]
    for name in cases:
        cells = [cell(one[name]) for one in found.values()]
        lines.append(f"| {name} | " + " | ".join([*cells, ratio(best[name], oracle[name]), ratio(best[name], found["ADWIN"][name])]) + " |")
    return lines


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few short streams, to see that it runs")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "holdfast-bench", help="where environments are kept")
    asked = parser.parse_args()
    plan, began = Plan(asked.smoke), time.process_time()
    lines = measured(plan, asked.environments)
    text = "\n".join([
        "# Delay of the quality monitor", "", *(__doc__ or "").splitlines()[2:], "",
        f"Run length {plan.run_length:,.0f} events, on {plan.null_streams} streams of {plan.null_events:,} events; "
        f"{plan.replicates} replicates a case, horizon {HORIZON:,}. Cells: mean delay in events (95% interval). "
        "Ours in the ratios: the largest reference.", "", *lines, "",
        f"{time.process_time() - began:.0f} CPU seconds.",
    ])  # fmt: skip
    print(text)
    if asked.write:
        RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
