"""False alarms and delays of the monitors, beside simple peers on the same streams and the same budget.

    python tests/bench/bench_false_alarms.py [--smoke] [--write]

Part one: streams in which nothing changes, looked at after every event. The budget allows an alarm within n events with
probability n / run_length_events; realised over nominal, with the exact binomial interval (Clopper and Pearson, 95%), must not
lie above 1. Part two: events from a change to the alarm, over replicates in which there was no alarm before; a replicate that
saw none within the horizon counts as the horizon.

Peers, each given the whole budget (ours shares it among its monitors):
  KS       two-sample Kolmogorov-Smirnov on each embedding column and on confidence, every 100 events, Bonferroni
  z known  one-sided z-test every 200 events on the error rate, the reference's rate taken as known
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # noqa: TID251  set for NumPy, before it is imported: one thread, so that runs compare
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # noqa: TID251

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from holdfast.domain import monitors, scorers
from holdfast.domain.captures import Capture, Label, LabelledCapture, Prediction
from holdfast.domain.ids import AdapterDigest, CaptureId, TaskName
from holdfast.domain.tasks import MonitoringPolicy
from holdfast.domain.windows import ReferenceWindow, WindowRows
from holdfast.testing.clock import NOON

HIDDEN, LABELS, BUDGET = 16, ("a", "b", "c", "d"), 5_000
DIGEST, TASK = AdapterDigest("bench"), TaskName("bench")
CENTRES = np.eye(len(LABELS), HIDDEN) * 3
RESULTS = Path(__file__).parent / "results" / "false_alarms.md"


@dataclass(frozen=True)
class Change:
    """What differs from the reference."""

    error_rate: float = 0.08
    shift: float = 0.0
    """Length of a shift of all embeddings along a direction of no special variance, in deviations of one column."""
    share_new: float = 0.0
    """Share of rows that come from a cluster the reference has not."""


@dataclass(frozen=True)
class Arm:
    """One detector: event at which it first alarms in a stream, or 0."""

    name: str
    first_alarm: Callable[[ReferenceWindow, WindowRows, int], int]


def rows_of(random: np.random.Generator, count: int, change: Change) -> WindowRows:
    """Gaussian clusters, one a label; confidences 0.5..1; wrong answers name the next label."""
    truth = random.integers(0, len(LABELS), count)
    said = np.where(random.random(count) < change.error_rate, (truth + 1) % len(LABELS), truth)
    new = random.random(count) < change.share_new
    centres = np.where(new[:, None], np.full(HIDDEN, -1.5), CENTRES[truth] + change.shift / np.sqrt(HIDDEN))
    return WindowRows(
        texts=("",) * count,
        predictions=tuple(LABELS[i] for i in said),
        confidences=random.uniform(0.5, 1.0, count).astype(np.float32),
        embeddings=(centres + random.standard_normal((count, HIDDEN))).astype(np.float32),
        labels=tuple(LABELS[i] for i in truth),
    )


def joined(one: WindowRows, other: WindowRows) -> WindowRows:
    """One window after the other."""
    return WindowRows(
        texts=one.texts + other.texts, predictions=one.predictions + other.predictions, labels=one.labels + other.labels,
        confidences=np.concatenate([one.confidences, other.confidences]), embeddings=np.concatenate([one.embeddings, other.embeddings]),
    )  # fmt: skip


def ours(reference: ReferenceWindow, stream: WindowRows, seed: int) -> int:
    """All monitors, looking after every event."""
    fitted, policy = scorers.fit(reference), MonitoringPolicy(run_length_events=BUDGET)
    rows = [_labelled(stream, n, seed) for n in range(len(stream))]
    states = monitors.observe(monitors.start(fitted), fitted, [row.capture for row in rows], policy)
    states = monitors.observe_labels(states, fitted, rows, policy)
    return min((s.detector.alarm_seq for s in states.values() if s.detector.alarm_seq), default=0)


def _labelled(stream: WindowRows, n: int, seed: int) -> LabelledCapture:
    name = CaptureId(f"{seed}-{n}")
    capture = Capture(
        capture_id=name, task=TASK, text="", prediction=Prediction(label=stream.predictions[n], confidence=float(stream.confidences[n])),
        adapter_digest=DIGEST, generation=1, route="champion", captured_at=NOON, latency_ms=0.0,
        embedding=stream.embeddings[n].astype(np.float16), seq=n + 1,
    )  # fmt: skip
    value = stream.labels[n]
    assert value is not None
    return LabelledCapture(capture=capture, label=Label(capture_id=name, task=TASK, value=value, source="bench", labelled_at=NOON))


def ks(reference: ReferenceWindow, stream: WindowRows, _: int, every: int = 100) -> int:
    """Kolmogorov-Smirnov on every column, Bonferroni over columns."""
    base, new = _columns(reference.calibration), _columns(stream)
    for end in range(every, len(new) + 1, every):
        p = stats.ks_2samp(base, new[end - every : end], axis=0).pvalue.min()
        if p * base.shape[1] <= every / BUDGET:
            return end
    return 0


def _columns(rows: WindowRows) -> NDArray[np.float64]:
    return np.column_stack([rows.embeddings, rows.confidences]).astype(np.float64)


def z_known(reference: ReferenceWindow, stream: WindowRows, _: int, every: int = 200) -> int:
    """One-sided z-test of the error rate, the reference's own error forgotten."""
    rate = min(max(float(_wrong(reference.calibration).mean()), 1e-3), 1 - 1e-3)
    limit, wrong = stats.norm.isf(every / BUDGET), _wrong(stream)
    for end in range(every, len(wrong) + 1, every):
        if (wrong[end - every : end].mean() - rate) / np.sqrt(rate * (1 - rate) / every) >= limit:
            return end
    return 0


def _wrong(rows: WindowRows) -> NDArray[np.bool_]:
    return np.array([said != label for said, label in zip(rows.predictions, rows.labels, strict=True)])


ARMS = (Arm("ours", ours), Arm("KS", ks), Arm("z known", z_known))


def _reference(random: np.random.Generator, size: int) -> ReferenceWindow:
    return ReferenceWindow(adapter_digest=DIGEST, fitted=rows_of(random, size, Change()), calibration=rows_of(random, size, Change()))


def false_alarms(replicates: int, events: int) -> list[str]:
    """Lines of the first table."""
    lines = ["| reference rows | detector | streams with an alarm | realised / nominal (95% interval) |", "|---|---|---|---|"]
    nominal = events / BUDGET
    for size in (100, 500, 2_000):
        alarms = dict.fromkeys((arm.name for arm in ARMS), 0)
        for seed in range(replicates):
            random = np.random.default_rng([size, seed])
            reference, stream = _reference(random, size), rows_of(random, events, Change())
            for arm in ARMS:
                alarms[arm.name] += arm.first_alarm(reference, stream, seed) > 0
        for name, count in alarms.items():
            low, high = (x / nominal for x in stats.binomtest(count, replicates).proportion_ci(0.95, "exact"))
            lines.append(f"| {size} | {name} | {count} of {replicates} | {count / replicates / nominal:.2f} ({low:.2f} to {high:.2f}) |")
            print(lines[-1], flush=True)
    return lines


def delays(replicates: int, quiet: int, horizon: int) -> list[str]:
    """Lines of the second table."""
    lines = ["| change | detector | median delay | 90% quantile | found | alarmed before |", "|---|---|---|---|---|---|"]
    changes = {
        "errors 8% to 16%": Change(error_rate=0.16),
        "one row in five from a new cluster": Change(share_new=0.2),
        "all embeddings by half a deviation": Change(shift=0.5),
        "all embeddings by 1 deviation": Change(shift=1.0),
        "all embeddings by 2 deviations": Change(shift=2.0),
    }
    for title, change in changes.items():
        seen: dict[str, list[int]] = {arm.name: [] for arm in ARMS}
        for seed in range(replicates):
            random = np.random.default_rng([77, seed])
            reference = _reference(random, 500)
            stream = joined(rows_of(random, quiet, Change()), rows_of(random, horizon, change))
            for arm in ARMS:
                seen[arm.name].append(arm.first_alarm(reference, stream, seed))
        for name, alarms in seen.items():
            lines.append(f"| {title} | {name} | {_delay_cells(alarms, quiet, horizon)} |")
            print(lines[-1], flush=True)
    return lines


def _delay_cells(alarms: list[int], quiet: int, horizon: int) -> str:
    waited = [(alarm - quiet) if alarm else horizon for alarm in alarms if alarm == 0 or alarm > quiet]
    if not waited:
        return f"- | - | - | {len(alarms)}"
    found = sum(alarm > quiet for alarm in alarms)
    return f"{np.median(waited):.0f} | {np.quantile(waited, 0.9):.0f} | {found} of {len(waited)} | {len(alarms) - len(waited)}"


def main() -> int:
    """Run both parts and print them; 1 when the interval of ours lies above the budget anywhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="A few replicates, to see that it runs.")
    parser.add_argument("--write", action="store_true", help=f"Write {RESULTS.name}.")
    asked = parser.parse_args()
    replicates, begin = (5 if asked.smoke else 100), time.process_time()
    events, quiet, horizon = 1_000, 300, 700
    first = false_alarms(replicates, events)
    second = delays(max(5, replicates // 5), quiet, horizon)
    seconds = time.process_time() - begin
    text = "\n".join([
        "# False alarms and delays", "",
        f"`python tests/bench/bench_false_alarms.py --write`; {HIDDEN} Gaussian dimensions, {len(LABELS)} labels, budget of one false",
        f"alarm in {BUDGET:,} events for the whole task, seeds fixed, {seconds:.0f} CPU seconds on one thread.", "",
        f"## Nothing changes: {events:,} events, looked at after each (nominal {events / BUDGET:.2f})", "", *first, "",
        f"## A change after {quiet} quiet events, reference of 500 rows, horizon {horizon:,} events", "", *second, "",
    ])  # fmt: skip
    if asked.write and not asked.smoke:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)
    print(f"\n{seconds:.0f} CPU seconds")
    return int(any("| ours |" in line and float(line.split("(")[1].split()[0]) > 1 for line in first))


if __name__ == "__main__":
    sys.exit(main())
