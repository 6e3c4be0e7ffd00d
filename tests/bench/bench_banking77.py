"""Banking77, whole training set: test accuracy and CPU seconds of both rungs, and of what else one would use.

    python tests/bench/bench_banking77.py [--data FOLDER] [--no-peer] [--random-too] [--peer-epochs N] [--smoke]

Ours runs as `holdfast train` does: one work order, one thread; a tenth of the official training rows is the validation split.
Peers: scikit-learn's LogisticRegression on the same frozen embeddings, and the stock Hugging Face Trainer with PEFT (LoRA on all
linears of all layers, same rank and batch, dynamic padding, rows grouped by length, which is its best documented setting; with
--random-too also in its default order), both on all rows. CPU seconds are those of this process. The embedding of all texts is
done once, timed, and counted in full to each that uses it. Scoring on the test rows between epochs is counted to nobody.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from holdfast.backends.lora import trainer
from holdfast.backends.lora.base_model import BaseModel, use_threads
from holdfast.backends.lora.orders import progress_of, run_order
from holdfast.backends.lora.prefix_cache import FrozenPrefix, by_length
from holdfast.domain.datasets import SnapshotRow
from holdfast.domain.ids import SnapshotDigest, TaskName
from holdfast.domain.records import from_plain, to_plain
from holdfast.domain.retraining import TrainingPlan, TrainingResult, WorkOrder
from holdfast.domain.tasks import LoraSpec, Rung
from holdfast.settings import MINILM

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.bench.banking77_peers import Look, Sampling, Table, sklearn_head, stock

MAX_TOKENS = 128


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """What all runs share."""

    train: Table
    test: Table
    spec: LoraSpec
    folder: Path
    embedding: float
    """CPU seconds of embedding all texts."""

    def frozen(self) -> FrozenPrefix:
        return FrozenPrefix(BaseModel.open("minilm", MINILM.path, MINILM.sha256), MAX_TOKENS, self.folder / "cache")


@dataclass(slots=True, eq=False)
class Watch:
    """Stands in for the trainer's look: looks, then scores on the test rows what the training would keep, off the clock."""

    held: trainer.PrefixRows
    accuracy: float = 0.0
    scoring: float = 0.0
    """CPU seconds of that scoring."""
    began: float = field(default_factory=time.process_time)
    found: list[Look] = field(default_factory=list)
    plain: Any = trainer._look

    def look(self, run: Any) -> None:
        self.plain(run)
        start = time.process_time()
        if run.best_step == run.step:  # else what is kept is what was kept before
            self.accuracy = self._score(run)
        name = f"after epoch {run.step / run.steps_per_epoch:.2f}, validation {run.curve[-1].validation_accuracy:.4f}"
        self.found.append(Look(name, self.accuracy, start - self.began - self.scoring))
        print(f"  LoRA {self.found[-1]}", flush=True)
        self.scoring += time.process_time() - start

    def _score(self, run: Any) -> float:
        right = 0
        with torch.no_grad():
            for indices in by_length([len(one) for one in self.held.states]):
                states, packing, targets = self.held.batch(indices)
                right += int((trainer._logits(run, run.best, states, packing).argmax(1) == targets).sum())
        return right / len(self.held)


def read_table(path: Path) -> Table:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def snapshot_rows(train: Table, test: Table) -> list[SnapshotRow]:
    """The official test rows held out; of the official training rows a seeded tenth is the validation split."""
    chosen = set(np.random.default_rng(0).permutation(len(train))[: len(train) // 10].tolist())
    rows = []
    for i, (text, label) in enumerate([*train, *test]):
        split: Any = "holdout" if i >= len(train) else "validation" if i in chosen else "train"
        rows.append(SnapshotRow(row_id=i, text=text, label=label, split=split, period="past", source="file"))
    return rows


def watch_for(site: Site) -> Watch:
    """A watch with the test rows run through the frozen layers, all of it before the clock starts."""
    frozen = site.frozen()
    labels = sorted({label for _, label in site.train})
    depth = max(0, len(frozen.base.layers) - site.spec.last_layers)
    states = frozen.hidden([text for text, _ in site.test], depth)
    return Watch(trainer.PrefixRows(states, [torch.tensor(labels.index(label)) for _, label in site.test]))


def ours(site: Site, rung: Rung) -> tuple[Look, list[Look]]:
    """Accuracy on the held-out rows and CPU seconds of the whole order, embedding included; and the looks on the way."""
    rows = snapshot_rows(site.train, site.test)
    work = write_order(site, rung, rows)
    watch = watch_for(site)
    trainer._look = watch.look
    watch.began = time.process_time()
    run_order(work)
    spent = time.process_time() - watch.began - watch.scoring
    trainer._look = watch.plain
    if progress_of(work).state != "done":
        raise SystemExit(progress_of(work).message)
    result = from_plain(TrainingResult, json.loads((work / "result.json").read_text()))
    truth = {row.row_id: row.label for row in rows}
    found = result.scores[result.rungs[0].digest]
    right = sum(truth[i] == label for i, label in zip(found.row_ids, found.predictions, strict=True))
    note = f"best look at {result.rungs[0].best_step} of {result.rungs[0].curve[-1].step} steps"
    looks = [dataclasses.replace(one, seconds=one.seconds + site.embedding) for one in watch.found]
    return Look(note, right / len(found.row_ids), spent + site.embedding), looks


def write_order(site: Site, rung: Rung, rows: Sequence[SnapshotRow]) -> Path:
    """A work folder with its order."""
    work = site.folder / rung
    work.mkdir()
    pq.write_table(pa.Table.from_pylist([to_plain(row) for row in rows]), work / "snapshot.parquet")
    plan = TrainingPlan(
        key=rung, task=TaskName("banking77"), base="minilm", base_digest=MINILM.sha256, labels=tuple(sorted({row.label for row in rows})),
        max_tokens=MAX_TOKENS, rungs=(rung,), lora=site.spec, seed=0, snapshot_digest=SnapshotDigest("banking77"), champion_digest=None,
    )  # fmt: skip
    order = WorkOrder(
        plan=plan, snapshot_path=str(work / "snapshot.parquet"), champion_folder=None, base_path=MINILM.path,
        cache_folder=str(site.folder / "cache"), threads=1,
    )  # fmt: skip
    (work / "order.json").write_text(json.dumps(to_plain(order)))
    return work


def peer(site: Site, sampling: Sampling, epochs: int) -> list[Look]:
    """The stock Trainer's looks, printed as they come."""
    found: list[Look] = []

    def tell(look: Look) -> None:
        found.append(look)
        print(f"  stock Trainer + PEFT, {sampling}: {look}", flush=True)

    stock(site.train, site.test, site.spec, site.folder, sampling=sampling, epochs=epochs, tell=tell)
    return found


def compare(looks: Sequence[Look], found: Sequence[Look], name: str) -> None:
    """What the aim asks: how much of the peer's CPU time ours needs for the peer's best accuracy."""
    best = max(found, key=lambda one: (one.accuracy, -one.seconds))
    print(f"{name}: best {best.accuracy:.4f} {best.name}, {best.seconds:.0f} CPU s")
    first = next((one for one in looks if one.accuracy >= best.accuracy), None)
    if first is None:
        print(f"  LoRA rung: never reaches it (best look {max(one.accuracy for one in looks):.4f})")
    else:
        print(f"  LoRA rung: {first.accuracy:.4f} {first.name}, {first.seconds:.0f} CPU s = {first.seconds / best.seconds:.2f} of its time")


def report(results: Sequence[tuple[str, Look]]) -> None:
    print("| what | test accuracy | CPU seconds | note |\n|---|---|---|---|")
    for name, look in results:
        print(f"| {name} | {look.accuracy:.4f} | {look.seconds:.0f} | {look.name} |")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--no-peer", action="store_true", help="without stock Trainer + PEFT, which takes most of the time")
    parser.add_argument("--random-too", action="store_true", help="the stock Trainer also with its default order of rows")
    parser.add_argument("--peer-epochs", type=int, default=4)
    parser.add_argument("--smoke", action="store_true", help="300 training rows, one epoch")
    return parser.parse_args()


def prepare(chosen: argparse.Namespace, data: Path, place: Path) -> Site:
    """Tables read, every text embedded."""
    spec = LoraSpec()
    train, test = read_table(data / "train.csv"), read_table(data / "test.csv")
    if chosen.smoke:
        spec, chosen.peer_epochs = dataclasses.replace(spec, epoch_count=1), 1
        train, test = train[::33], test[::20]
    BaseModel.open("minilm", MINILM.path, MINILM.sha256)
    site = Site(train, test, spec, place, 0.0)
    began = time.process_time()
    site.frozen().pooled([text for text, _ in [*train, *test]])
    site = dataclasses.replace(site, embedding=time.process_time() - began)
    print(f"{len(train)} training rows, {len(test)} test rows, one thread; {spec}; embedding {site.embedding:.0f} CPU s", flush=True)
    return site


def measure(chosen: argparse.Namespace, site: Site) -> None:
    """Every run, one after the other, then the table and the comparison."""
    results = [("Holdfast, head rung", ours(site, "head")[0])]
    print(results[-1], flush=True)
    trained, looks = ours(site, "lora")
    results.append(("Holdfast, LoRA rung, its head included", trained))
    print(results[-1], flush=True)
    frozen = site.frozen()
    plain = sklearn_head((frozen.pooled([t for t, _ in site.train]), frozen.pooled([t for t, _ in site.test])), site.train, site.test)
    results.append(("scikit-learn, frozen embeddings", dataclasses.replace(plain, seconds=plain.seconds + site.embedding)))
    print(results[-1], flush=True)
    peers: dict[str, list[Look]] = {}
    samplings: tuple[Sampling, ...] = () if chosen.no_peer else ("group_by_length", "random") if chosen.random_too else ("group_by_length",)
    for sampling in samplings:
        name = f"stock Trainer + PEFT, all layers, {sampling}"
        peers[name] = peer(site, sampling, chosen.peer_epochs)
        results += [(name, look) for look in peers[name]]
    report(results)
    for name, found in peers.items():
        compare([*looks, trained], found, name)


def main() -> int:
    chosen = parse()
    folder = chosen.data / "banking77"
    if not (folder / "train.csv").exists():
        print(f"no Banking77 in {folder}; give its folder's parent with --data")
        return 0
    use_threads(1)
    with tempfile.TemporaryDirectory() as name:
        measure(chosen, prepare(chosen, folder, Path(name)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
