"""Both rungs of sets and spans are trained by one order, sealed, taken into the store, and answer what they were taught."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from holdfast.backends.adapter_store import FolderAdapterStore
from holdfast.backends.lora import LocalTrainer
from holdfast.backends.lora.targets import IGNORED, quality, row_targets, thresholds
from holdfast.domain.adapters import adapter_digest
from holdfast.domain.answers import Span, label_counts, row_score, spans_value
from holdfast.domain.datasets import Example
from holdfast.domain.ids import SnapshotDigest, TaskName
from holdfast.domain.records import to_plain
from holdfast.domain.retraining import TrainingPlan
from holdfast.domain.splits import first_snapshot
from holdfast.domain.tasks import Kind, LoraSpec
from holdfast.testing.several import topics
from holdfast.testing.tiny_model import make_tiny_model

THINGS, FAULTS = ("parcel", "battery", "order screen", "card"), ("broken", "late", "lost twice")
OPENINGS = ("hello where is", "why is", "please return", "can you cancel")


def requests(count: int) -> list[Example]:
    """Spans in words that the tiny model's tokenizer knows whole: random weights tell nothing of words made of letters."""
    found = []
    for n in range(count):
        thing, fault = THINGS[n % 4], FAULTS[n // 4 % 3]
        text = f"{OPENINGS[n // 12 % 4]} my {thing} {fault} {n}"
        places = {"thing": (text.index(thing), thing), "fault": (text.index(fault), fault)}
        spans = [Span(field=field, start=at, end=at + len(said), text=said) for field, (at, said) in places.items()]
        found.append(Example(text=text, label=spans_value(spans)))
    return found


@pytest.mark.parametrize(("kind", "least"), [("multi-label", 0.7), ("extraction", 0.7)])
def test_both_rungs_learn_are_taken_in_and_lora_does_not_lose_on_validation(tmp_path: Path, kind: Kind, least: float) -> None:
    path, sha = make_tiny_model(tmp_path / "tiny")
    rows = first_snapshot(requests(240) if kind == "extraction" else topics(1, 240), seed=1).rows
    pq.write_table(pa.Table.from_pylist([to_plain(row) for row in rows]), tmp_path / "rows.parquet")
    trainer = LocalTrainer(
        tmp_path / "work", snapshots_path=lambda digest: tmp_path / "rows.parquet", champion_folder=lambda digest: tmp_path,
        bases={"tiny": (path, sha)}, cache_folder=tmp_path / "cache",
    )  # fmt: skip
    trainer.start(
        TrainingPlan(
            key="k", task=TaskName("t"), base="tiny", base_digest=f"sha256:{sha}",
            labels=tuple(sorted(label_counts(row.label for row in rows if row.split == "train"))), max_tokens=64, rungs=("head", "lora"),
            lora=LoraSpec(rank=4, last_layers=1, epoch_count=3), seed=1, snapshot_digest=SnapshotDigest("s"), champion_digest=None,
            kind=kind,
        )
    )  # fmt: skip
    result = trainer.result("k")
    truth = {row.row_id: row.label for row in rows}
    for rung in result.rungs:
        manifest = FolderAdapterStore(tmp_path / "store").add(Path(rung.folder))
        assert (manifest.kind, adapter_digest(manifest)) == (kind, rung.digest)
        scores = result.scores[rung.digest]
        right = [row_score(said, truth[i], "f1") for i, said in zip(scores.row_ids, scores.predictions, strict=True)]
        assert sum(right) > least * len(right)
        assert all(0.0 <= one <= 1.0 for one in scores.confidences)
    curve = result.rungs[1].curve
    assert max(point.validation_accuracy for point in curve) >= curve[0].validation_accuracy


def test_tags_follow_the_offsets_of_tokens_and_special_tokens_are_not_learnt() -> None:
    value = spans_value([Span(field="b", start=3, end=9, text="de fgh")])
    offsets = [(0, 0), (0, 2), (3, 5), (6, 8), (8, 9), (9, 10), (0, 0)]
    (tags,) = row_targets("extraction", ("a", "b"), [value], [offsets])
    assert tags.tolist() == [IGNORED, 0, 2, 4, 4, 0, IGNORED]


def test_a_threshold_lets_a_rare_label_be_said() -> None:
    targets = torch.zeros(100, 1)
    targets[:20] = 1.0
    logits = torch.full((100, 1), -2.0)
    logits[:20] = -0.6
    assert float(thresholds(logits, targets)) > 0.6
    assert quality(logits, targets) == 1.0
    assert quality(logits[:0], targets[:0]) == 0.0
