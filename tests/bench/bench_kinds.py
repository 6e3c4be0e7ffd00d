"""Sets of labels and spans on real data: both rungs, as `holdfast train` trains them, on rows held out.

    python tests/bench/bench_kinds.py [--data FOLDER] [--only NAME] [--rung head|lora] [--smoke]

snips: SNIPS slots, the official 700 test rows held out, 700 of the training rows to validate, as the research split has it.
k8s: Kubernetes release notes with the groups that own each; a text that repeats counts once, split by a hash of the text.
CPU seconds are those of this process, one thread, the reading of texts included.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.backends.lora.orders import progress_of, run_order
from holdfast.domain.answers import Span, labels_in, labels_value, matches, row_score, spans_value
from holdfast.domain.datasets import Example, SnapshotRow
from holdfast.domain.ids import SnapshotDigest, TaskName
from holdfast.domain.records import from_plain, to_plain
from holdfast.domain.retraining import TrainingPlan, TrainingResult, WorkOrder
from holdfast.domain.splits import first_snapshot
from holdfast.domain.tasks import Kind, LoraSpec, Rung
from holdfast.settings import MINILM

Rows = list[SnapshotRow]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def snips(data: Path) -> tuple[Kind, Rows]:
    """13,084 / 700 / 700 rows."""
    folder = data / "snips_slots"
    train, test = lines_of(folder / "train.jsonl"), lines_of(folder / "test.jsonl")
    chosen = set(np.random.default_rng(0).permutation(len(train))[:700].tolist())
    rows = []
    for i, line in enumerate([*train, *test]):
        split: Any = "holdout" if i >= len(train) else "validation" if i in chosen else "train"
        spans = [Span(field=s["slot"], start=s["start"], end=s["end"], text=s["value"]) for s in line["slots"]]
        rows.append(SnapshotRow(row_id=i, text=line["text"], label=spans_value(spans), split=split, period="past", source="file"))
    return "extraction", rows


def k8s(data: Path) -> tuple[Kind, Rows]:
    """2,635 distinct notes, seven tenths to train."""
    lines = lines_of(data / "k8s_release_notes" / "k8s_release_notes_1.20_1.28.jsonl")
    return "multi-label", list(first_snapshot((Example(text=n["text"], label=labels_value(n["sigs"])) for n in lines), seed=0).rows)


CASES: dict[str, Callable[[Path], tuple[Kind, Rows]]] = {"k8s": k8s, "snips": snips}


def run(kind: Kind, rows: Sequence[SnapshotRow], rungs: tuple[Rung, ...], folder: Path) -> tuple[TrainingResult, float]:
    """The finished order, and the CPU seconds it took."""
    pq.write_table(pa.Table.from_pylist([to_plain(row) for row in rows]), folder / "snapshot.parquet")
    labels = tuple(sorted({label for row in rows if row.split == "train" for label in labels_in(row.label)}))
    plan = TrainingPlan(
        key="bench", task=TaskName("bench"), base="minilm", base_digest=MINILM.sha256, labels=labels, max_tokens=128, rungs=rungs,
        lora=LoraSpec(), seed=0, snapshot_digest=SnapshotDigest("bench"), champion_digest=None, kind=kind,
    )  # fmt: skip
    order = WorkOrder(
        plan=plan, snapshot_path=str(folder / "snapshot.parquet"), champion_folder=None, base_path=MINILM.path,
        cache_folder=str(folder / "cache"), threads=1,
    )  # fmt: skip
    (folder / "order.json").write_text(json.dumps(to_plain(order)))
    began = time.process_time()
    run_order(folder)
    if progress_of(folder).state != "done":
        raise SystemExit(progress_of(folder).message)
    return from_plain(TrainingResult, json.loads((folder / "result.json").read_text())), time.process_time() - began


def report(name: str, rows: Sequence[SnapshotRow], result: TrainingResult, spent: float) -> None:
    truth = {row.row_id: row.label for row in rows}
    for rung in result.rungs:
        scores = result.scores[rung.digest]
        pairs = [(said, truth[i]) for i, said in zip(scores.row_ids, scores.predictions, strict=True)]
        both, ours, right = np.sum([matches(*pair) for pair in pairs], axis=0)
        exact = np.array([row_score(*pair, "accuracy") for pair in pairs])
        sure = np.array(scores.confidences)
        halves = sure >= np.median(sure)
        print(
            f"{name:6} {rung.rung:5} rows {len(pairs):5}  precision {both / max(1, ours):.4f}  recall {both / right:.4f}  "
            f"micro F1 {2 * both / (ours + right):.4f}  mean row F1 {np.mean([row_score(*p, 'f1') for p in pairs]):.4f}  "
            f"exact {exact.mean():.4f} (surer half {exact[halves].mean():.4f}, mean confidence {sure.mean():.3f})  "
            f"best look {rung.best_step} of {rung.curve[-1].step}",
            flush=True,
        )
    print(
        f"{name:6} CPU seconds {spent:.0f}, of which by rung: {', '.join(f'{r.rung} {r.seconds:.0f} wall' for r in result.rungs)}",
        flush=True,
    )


def main() -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--only", default="", choices=["", *CASES], help="one of them")
    parser.add_argument("--rung", default="", choices=["", "head", "lora"], help="the head alone (it is always trained), or both")
    parser.add_argument("--smoke", action="store_true", help="every twentieth row")
    asked = parser.parse_args()
    for name, read in CASES.items():
        if asked.only not in ("", name):
            continue
        kind, rows = read(asked.data)
        rows = [replace(row, row_id=n) for n, row in enumerate(rows[::20])] if asked.smoke else rows
        with tempfile.TemporaryDirectory() as folder:
            report(name, rows, *run(kind, rows, ("head",) if asked.rung == "head" else ("head", "lora"), Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
