"""Training of both rungs on a tiny base: what is written, that it is repeatable, and that a killed training goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.backends.lora import LocalTrainer, run_order
from holdfast.backends.lora.job import main
from holdfast.domain.datasets import SnapshotRow, Split
from holdfast.domain.ids import AdapterDigest, SnapshotDigest, TaskName
from holdfast.domain.records import from_plain, to_plain
from holdfast.domain.retraining import TrainedRung, TrainingPlan, TrainingResult, WorkOrder
from holdfast.domain.tasks import LoraSpec
from holdfast.errors import TrainingFailed
from holdfast.testing.tiny_model import make_tiny_model

LABELS = ("billing", "delivery", "access")
WORDS = {"billing": ("invoice", "charged", "refund"), "delivery": ("parcel", "late", "lost"), "access": ("login", "password", "reset")}
SPEC = LoraSpec(rank=4, alpha=8.0, last_layers=1, epoch_count=3, batch_rows=16)
SNAPSHOT = SnapshotDigest("sha256:snapshot")


def rows_of_three_classes(count: int) -> list[SnapshotRow]:
    splits: tuple[Split, ...] = ("train", "train", "train", "validation", "holdout")
    rows = []
    for i in range(count):
        label = LABELS[i % 3]
        words = WORDS[label]
        text = f"{words[i % 2]} {words[(i + 1) % 3]} please my order {i}"
        period = "recent" if i > count * 0.7 else "past"
        rows.append(SnapshotRow(row_id=i, text=text, label=label, split=splits[(i // 3) % 5], period=period, source="file"))  # type: ignore[arg-type]
    return rows


def write_snapshot(path: Path, rows: list[SnapshotRow]) -> Path:
    pq.write_table(pa.Table.from_pylist([to_plain(row) for row in rows]), path)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def plan_of(base: tuple[str, str], key: str = "trn_1") -> TrainingPlan:
    return TrainingPlan(
        key=key, task=TaskName("tickets"), base="tiny", base_digest=base[1], labels=LABELS, max_tokens=32, rungs=("head", "lora"),
        lora=SPEC, seed=3, snapshot_digest=SNAPSHOT, champion_digest=None,
    )  # fmt: skip


Make = Callable[[str], LocalTrainer]


@pytest.fixture
def make_trainer(tmp_path: Path, base: tuple[str, str]) -> Make:
    snapshot = write_snapshot(tmp_path / "snapshot.parquet", rows_of_three_classes(300))
    adapters: dict[str, Path] = {}

    def folder(digest: AdapterDigest) -> Path:
        return adapters.get(digest) or next((tmp_path / "work").glob("*/adapters/lora"))

    def make(cache: str = "cache") -> LocalTrainer:
        return LocalTrainer(
            tmp_path / "work", snapshots_path=lambda digest: snapshot, champion_folder=folder, bases={"tiny": base},
            cache_folder=tmp_path / cache, threads=1,
        )  # fmt: skip

    return make


def rung(result: TrainingResult, name: str) -> TrainedRung:
    return next(one for one in result.rungs if one.rung == name)


def test_both_rungs_are_trained_scored_on_every_held_out_row_and_right_on_an_easy_task(make_trainer: Make, base: tuple[str, str]) -> None:
    trainer = make_trainer("cache")
    assert trainer.progress("trn_1").state == "absent"
    trainer.start(plan_of(base))
    result = trainer.result("trn_1")
    assert trainer.progress("trn_1").state == "done"
    truth = {row.row_id: row.label for row in rows_of_three_classes(300) if row.split == "holdout"}
    assert [one.rung for one in result.rungs] == ["head", "lora"]
    for one in result.rungs:
        scores = result.scores[one.digest]
        assert set(scores.row_ids) == set(truth)
        right = sum(truth[i] == label for i, label in zip(scores.row_ids, scores.predictions, strict=True))
        assert right / len(truth) > 0.95
        assert all(0.3 < one <= 1.0 for one in scores.confidences)
        assert one.curve and one.byte_count > 0
    assert rung(result, "lora").curve[0].step == 0, "the start, the fitted head, is the first checkpoint"


def test_the_reference_holds_training_rows_and_recent_held_out_rows(make_trainer: Make, base: tuple[str, str], tmp_path: Path) -> None:
    trainer = make_trainer("cache")
    trainer.start(plan_of(base))
    table = pq.read_table(Path(rung(trainer.result("trn_1"), "lora").folder) / "reference.parquet")
    assert table.column_names == ["part", "text", "label", "prediction", "confidence", "embedding"]
    parts = table.column("part").to_pylist()
    assert parts.count("fitted") == 180
    assert parts.count("calibration") == 60, "18 recent held-out rows are too few, so all 60 are taken"
    assert len(table.column("embedding")[0].as_py()) == 32


def test_the_same_plan_gives_the_same_adapters(make_trainer: Make, base: tuple[str, str]) -> None:
    for key, cache in (("trn_1", "cache"), ("trn_2", "another")):
        make_trainer(cache).start(plan_of(base, key))
    one, two = make_trainer("cache").result("trn_1"), make_trainer("cache").result("trn_2")
    assert [r.digest for r in one.rungs] == [r.digest for r in two.rungs]


def test_a_champion_is_scored_on_the_same_rows_and_its_missing_labels_are_wrong_answers(make_trainer: Make, base: tuple[str, str]) -> None:
    trainer = make_trainer("cache")
    trainer.start(plan_of(base))
    champion = rung(trainer.result("trn_1"), "lora").digest
    trainer.start(replace(plan_of(base, "trn_2"), champion_digest=champion, rungs=("head",), labels=(*LABELS, "new")))
    result = trainer.result("trn_2")
    assert set(result.scores) == {champion, result.rungs[0].digest}
    assert set(result.scores[champion].predictions) <= set(LABELS)
    assert trainer.engine.loaded() == frozenset()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: replace(plan, labels=("billing", "delivery")), "not in the plan"),
        (lambda plan: replace(plan, base_digest="0" * 64), "the plan asks for"),
    ],
)
def test_a_training_that_cannot_be_done_fails_with_one_reason(
    make_trainer: Make, base: tuple[str, str], change: Callable[[TrainingPlan], TrainingPlan], said: str
) -> None:
    trainer = make_trainer("cache")
    trainer.start(change(plan_of(base)))
    assert trainer.progress("trn_1").state == "failed"
    with pytest.raises(TrainingFailed, match=said):
        trainer.result("trn_1")


def write_order(work: Path, base: tuple[str, str], *, rows: list[SnapshotRow], epochs: int) -> None:
    work.mkdir(parents=True)
    snapshot = write_snapshot(work.parent / f"{work.name}.parquet", rows)
    plan = replace(plan_of(base), rungs=("lora",), lora=replace(SPEC, epoch_count=epochs, learning_rate=1e-4))
    order = WorkOrder(
        plan=plan, snapshot_path=str(snapshot), champion_folder=None, base_path=base[0], cache_folder=str(work.parent / "cache"), threads=1
    )
    (work / "order.json").write_text(json.dumps(to_plain(order)))


def test_a_training_that_is_killed_goes_on_from_its_checkpoint_and_ends_the_same(tmp_path: Path, base: tuple[str, str]) -> None:
    program = (
        "import sys; from pathlib import Path; import holdfast.backends.lora.trainer as t; t.SAVE_S = 0.0; "
        "from holdfast.backends.lora.orders import run_order; run_order(Path(sys.argv[1]))"
    )
    rows = rows_of_three_classes(300)
    for name in ("whole", "killed"):
        write_order(tmp_path / name, base, rows=rows, epochs=10)
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "killed")])
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not list(tmp_path.glob("killed/checkpoints/*/state.json")):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob("killed/checkpoints/*/state.json")), "it had a checkpoint"
    assert not (tmp_path / "killed" / "result.json").exists(), "it was killed in the middle"
    for name in ("whole", "killed"):
        run_order(tmp_path / name)
    whole, killed = (from_plain(TrainingResult, json.loads((tmp_path / name / "result.json").read_text())) for name in ("whole", "killed"))
    assert whole.rungs[0].digest == killed.rungs[0].digest
    assert whole.rungs[0].curve == killed.rungs[0].curve


def test_the_job_ends_with_code_1_and_a_reason_when_the_order_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text("{")
    assert main([str(tmp_path)]) == 1
    assert json.loads((tmp_path / "failure.json").read_text())["state"] == "failed"
    assert main([]) == 2
