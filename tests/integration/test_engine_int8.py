"""Eight bits answer only for an adapter that was tried on its own reference rows and lost no more than was accepted."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from holdfast.backends.lora.engine import LoraEngine, ServingOptions
from holdfast.backends.lora.files import FINGERPRINT_NAME, finish_adapter, write_json
from holdfast.backends.lora.head import Head
from holdfast.backends.lora.int8_trial import MIN_ROWS
from holdfast.backends.lora.scoring import Weights, write_weights
from holdfast.domain.adapters import REFERENCE_NAME
from holdfast.domain.ids import AdapterDigest, SnapshotDigest, TaskName
from holdfast.domain.retraining import TrainingPlan
from holdfast.domain.tasks import LoraSpec
from holdfast.ports import Question
from holdfast.testing.tiny_model import WORDS, make_tiny_model

TEXTS = [" ".join(random.Random(seed).choices(WORDS, k=1 + seed % 12)) for seed in range(MIN_ROWS + 20)]
LABELS = tuple("abcd")


@pytest.fixture(scope="module")
def pin(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def make_adapter(folder: Path, engine: LoraEngine, *, seed: int = 3, delicate: bool = False, rows: int = len(TEXTS)) -> AdapterDigest:
    """A head with reference rows that it answers right. A delicate one decides by what differs least among the texts."""
    base, chance = engine.base("tiny"), torch.Generator().manual_seed(seed)
    plan = TrainingPlan(
        key="k", task=TaskName("t"), base="tiny", base_digest=base.digest, labels=LABELS, max_tokens=32, rungs=("head",), lora=LoraSpec(),
        seed=0, snapshot_digest=SnapshotDigest("s"), champion_digest=None,
    )  # fmt: skip
    head = Head(torch.randn(len(LABELS), base.hidden, generator=chance), torch.zeros(len(LABELS)))
    if delicate:
        pooled = torch.from_numpy(engine.frozen(base, 32).pooled(TEXTS))
        along = torch.linalg.svd(pooled - pooled.mean(0))[2][-1]  # [hidden]
        head = Head(
            torch.stack([along, -along, 0 * along, 0 * along]),
            torch.cat([torch.tensor([-1.0, 1.0]) * (pooled.mean(0) @ along), torch.tensor([-9.0, -9.0])]),
        )
    folder.mkdir(parents=True)
    digest = finish_adapter(folder, write_weights(folder, Weights("head", head), plan))
    write_json(folder / FINGERPRINT_NAME, engine.fingerprint(engine.read(folder)))
    labels = engine._tried(engine.read(folder), TEXTS[:rows], False)
    table = {"part": ["calibration"] * rows, "text": TEXTS[:rows], "label": labels}
    pq.write_table(pa.table(table), folder / REFERENCE_NAME)
    return digest


def serve(pin: tuple[str, str], code: Path, loss: float | None, adapters: dict[AdapterDigest, Path]) -> frozenset[AdapterDigest]:
    """Load, wait for the trials, and say which adapters answer otherwise than exactly."""
    engine = LoraEngine({"tiny": pin}, 1, serving=ServingOptions(code_folder=code, way="eager", int8_loss=loss))
    exact = LoraEngine({"tiny": pin}, 1)
    for digest, folder in adapters.items():
        engine.load(digest, folder)
        exact.load(digest, folder)
    engine.close()  # ends after the trials
    return frozenset(
        digest
        for digest in adapters
        if any(
            abs(a.prediction.confidence - b.prediction.confidence) > 1e-5
            for a, b in zip(*(one.answer([Question(digest=digest, text=text) for text in TEXTS]) for one in (engine, exact)), strict=True)
        )
    )


def test_only_what_was_tried_and_lost_little_answers_in_eight_bits(pin: tuple[str, str], tmp_path: Path) -> None:
    maker = LoraEngine({"tiny": pin}, 1)
    robust = make_adapter(tmp_path / "robust", maker)
    untried = make_adapter(tmp_path / "untried", maker, seed=4, rows=MIN_ROWS - 1)
    adapters = {robust: tmp_path / "robust", untried: tmp_path / "untried"}
    assert serve(pin, tmp_path / "code", None, adapters) == frozenset()
    assert serve(pin, tmp_path / "code", 0.5, adapters) == {robust}
    (kept,) = (tmp_path / "code").glob("int8-*.json")
    trial = json.loads(kept.read_text())
    assert trial["row_count"] == len(TEXTS) and trial["exact"] == 1.0 and trial["int8"] > 0.9


def test_what_would_lose_more_than_was_accepted_goes_on_answering_exactly(pin: tuple[str, str], tmp_path: Path) -> None:
    maker = LoraEngine({"tiny": pin}, 1)
    digest = make_adapter(tmp_path / "one", maker, delicate=True)
    assert serve(pin, tmp_path / "code", 0.01, {digest: tmp_path / "one"}) == frozenset()
    (kept,) = (tmp_path / "code").glob("int8-*.json")
    assert json.loads(kept.read_text())["int8"] < 0.99


def test_an_adapter_without_reference_answers_exactly(pin: tuple[str, str], tmp_path: Path) -> None:
    digest = make_adapter(tmp_path / "one", LoraEngine({"tiny": pin}, 1))
    (tmp_path / "one" / REFERENCE_NAME).unlink()
    assert serve(pin, tmp_path / "code", 1.0, {digest: tmp_path / "one"}) == frozenset()
