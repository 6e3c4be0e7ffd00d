"""What watching costs: CPU per event, bytes per task, and seconds of a report, beside Evidently as it comes and alibi-detect.

    python tests/bench/bench_monitor_cost.py [--smoke] [--write] [--environments FOLDER]

Per event: all monitors of a task read captures with 384-number embeddings and a label each, in portions of 1,000 as a look reads them, and
one by one; alibi-detect's online MMD (window 25, on the embedding alone, in an environment of its own) reads the same embeddings one by
one, as it must. A report: ours thins a window to 10,000 rows; Evidently's DataDriftPreset takes all of it, on the same columns, which
are made in its time too. CPU seconds of the process, interleaved, medians; memory is that of a process that makes one report.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")  # noqa: TID251  set before NumPy is imported: one thread, so that runs compare

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.peer_servers import Absent, environment

from holdfast.backends.evidently_reports import EvidentlyReporter
from holdfast.domain import monitors, scorers
from holdfast.domain.captures import Capture, Label, LabelledCapture, Prediction
from holdfast.domain.ids import AdapterDigest, CaptureId, TaskName
from holdfast.domain.tasks import MonitoringPolicy
from holdfast.domain.windows import ReferenceWindow, WindowRows
from holdfast.testing.clock import NOON

RESULTS = Path(__file__).parent / "results" / "monitor_cost.md"
PEER = Path(__file__).parent / "peers" / "alibi_online.py"
HIDDEN, LABELS, PORTION = 384, tuple(f"label {i}" for i in range(20)), 1_000
NARROW = 32
"""Width of the embeddings that reports are made of: both look at five directions of them."""
TASK, DIGEST = TaskName("bench"), AdapterDigest("bench")
WORDS = np.array(["card", "late", "refund", "parcel", "login", "invoice", "where", "my", "is", "the", "please", "help"])


def rows_of(count: int, seed: int, hidden: int = HIDDEN) -> WindowRows:
    """Gaussian clusters, one a label; texts of a few words, repeated after 10,000 rows."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, len(LABELS), count)
    centres = np.random.default_rng(0).standard_normal((len(LABELS), hidden)).astype(np.float32)
    said = np.where(random.random(count) < 0.08, (truth + 1) % len(LABELS), truth)
    texts = tuple(" ".join(WORDS[random.integers(0, len(WORDS), random.integers(3, 12))]) for _ in range(min(count, 10_000)))
    return WindowRows(
        texts=(texts * -(-count // len(texts)))[:count],
        predictions=tuple(LABELS[i] for i in said),
        labels=tuple(LABELS[i] for i in truth),
        confidences=random.uniform(0.5, 1.0, count).astype(np.float32),
        embeddings=centres[truth] + random.standard_normal((count, hidden), dtype=np.float32),
    )


def labelled(rows: WindowRows) -> list[LabelledCapture]:
    """As the log gives them."""
    found = []
    for n in range(len(rows)):
        name, value = CaptureId(f"request-{n:08d}"), rows.labels[n]
        assert value is not None, "every row has its label here"
        said = Prediction(label=rows.predictions[n], confidence=float(rows.confidences[n]))
        capture = Capture(
            capture_id=name, task=TASK, text=rows.texts[n], prediction=said,
            adapter_digest=DIGEST, generation=1, route="champion", captured_at=NOON, latency_ms=1.0,
            embedding=rows.embeddings[n].astype(np.float16), seq=n + 1,
        )  # fmt: skip
        label = Label(capture_id=name, task=TASK, value=value, source="bench", labelled_at=NOON, seq=n + 1)
        found.append(LabelledCapture(capture=capture, label=label))
    return found


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def watch(fitted: scorers.Scorers, rows: list[LabelledCapture], portion: int) -> dict[str, monitors.MonitorState]:
    """All monitors over the rows, a portion at a time."""
    states, policy = monitors.start(fitted), MonitoringPolicy()
    for begin in range(0, len(rows), portion):
        some = rows[begin : begin + portion]
        states = monitors.observe(states, fitted, [row.capture for row in some], policy)
        states = monitors.observe_labels(states, fitted, some, policy)
    return states


def per_event(events: int, rounds: int, peer: Callable[[WindowRows], float]) -> list[str]:
    """Lines of the first table."""
    reference = ReferenceWindow(adapter_digest=DIGEST, fitted=rows_of(2_000, 1), calibration=rows_of(1_000, 2))
    fitted, stream = scorers.fit(reference), rows_of(events, 3)
    rows = labelled(stream)
    states = watch(fitted, rows[:PORTION], PORTION)  # imports what is imported late
    portions, single, theirs = [], [], []
    for _ in range(rounds):
        portions.append(cpu(lambda: watch(fitted, rows, PORTION)) / events * 1e6)
        single.append(cpu(lambda: watch(fitted, rows[:500], 1)) / 500 * 1e6)
        theirs.append(peer(stream))
    size = sum(len(monitors.dump(state)) for state in states.values())
    lines = [
        "| what | CPU us an event | alibi-detect over it |", "|---|---|---|",
        f"| all {len(scorers.NAMES)} monitors and a label, portions of {PORTION:,} | {median(portions):.1f} | {_over(theirs, portions)} |",
        f"| the same, one by one | {median(single):.0f} | {_over(theirs, single)} |",
        f"| alibi-detect online MMD, the embedding alone | {median(theirs):.0f} | 1 |", "",
        f"State of a task: {size:,} bytes as JSON, whatever the number of events.", "",
    ]  # fmt: skip
    print("\n".join(lines), flush=True)
    return lines


def _over(theirs: list[float], ours: list[float]) -> str:
    return f"{median(theirs) / median(ours):.0f}" if all(np.isfinite(theirs)) else "-"


def alibi(folder: Path) -> Callable[[WindowRows], float]:
    """CPU microseconds an event of the peer; NaN when it cannot be installed."""

    def run(stream: WindowRows) -> float:
        try:
            python = environment("alibi", folder)
        except Absent as error:
            print(f"alibi-detect is absent: {error}", flush=True)
            return float("nan")
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "rows.npz"
            np.savez(path, reference=rows_of(500, 2).embeddings, stream=stream.embeddings[:300])
            done = subprocess.run([python, PEER, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
        return float(json.loads(done.stdout.splitlines()[-1])["us"])

    return run


def one_report(kind: str, count: int) -> None:
    """In a process of its own: makes one small report, then the one that is measured; prints CPU seconds and peak MB."""
    reference, current = rows_of(min(count, 10_000), 1, NARROW), rows_of(count, 2, NARROW)
    with tempfile.TemporaryDirectory() as folder:
        make = ours(Path(folder)) if kind == "ours" else plain
        make(rows_of(100, 1, NARROW), rows_of(100, 2, NARROW))
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        spent = cpu(lambda: make(reference, current))
        print(json.dumps({"cpu": spent, "mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024}))


def ours(folder: Path) -> Callable[[WindowRows, WindowRows], object]:
    """The reporter as it runs."""
    return lambda reference, current: EvidentlyReporter(folder).report(TASK, reference, current, at=NOON)


def plain(reference: WindowRows, current: WindowRows) -> object:
    """The same columns of all rows by DataDriftPreset at its defaults, saved as a page."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    from holdfast.backends.evidently_reports import columns

    columns.MAX_ROWS = 1 << 62
    made = columns.compare(reference, current)
    definition = DataDefinition(categorical_columns=["prediction"], numerical_columns=[c for c in made.columns if c != "prediction"])
    now, before = (Dataset.from_pandas(table[list(made.columns)], data_definition=definition) for table in (made.current, made.reference))
    found = Report([DataDriftPreset(columns=list(made.columns))], include_tests=False).run(now, before)
    with tempfile.NamedTemporaryFile(suffix=".html") as page:
        found.save_html(page.name)
    return found


def reports(counts: tuple[int, ...], rounds: int) -> list[str]:
    """Lines of the second table."""
    lines = [
        "| rows of the window | ours: CPU s, MB above a report of 100 rows | plain Evidently | its CPU over ours |",
        "|---|---|---|---|",
    ]
    for count in counts:
        found: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
        for _ in range(rounds if count < 1_000_000 else 1):
            for kind, kept in found.items():
                command = [sys.executable, "-W", "ignore", __file__, "--one", kind, str(count)]
                kept.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]))
        cells = {kind: (median(one["cpu"] for one in kept), median(one["mb"] for one in kept)) for kind, kept in found.items()}
        told = " | ".join(f"{seconds:.1f}, {mb:.0f}" for seconds, mb in cells.values())
        lines.append(f"| {count:,} | {told} | {cells['plain'][0] / cells['ours'][0]:.1f} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run it and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small, to see that it runs")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "holdfast-bench", help="where environments are kept")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        return one_report(asked.one[0], int(asked.one[1]))
    events, rounds, counts = (1_000, 1, (1_000,)) if asked.smoke else (20_000, 5, (1_000, 100_000, 1_000_000))
    lines = per_event(events, rounds, (lambda _: float("nan")) if asked.smoke else alibi(asked.environments)) + reports(
        counts, min(rounds, 3)
    )
    text = "\n".join(["# What watching costs", "", *(__doc__ or "").splitlines()[2:], "", *lines, ""])
    if asked.write:
        RESULTS.write_text(text)
    return None


if __name__ == "__main__":
    main()
