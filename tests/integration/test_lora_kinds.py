"""Sets of labels and spans from the engine: beside single labels in one batch, with offsets that cut the text exactly."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.backends.lora.decoding import best_tags
from holdfast.backends.lora.engine import LoraEngine
from holdfast.backends.lora.files import FINGERPRINT_NAME, finish_adapter, write_json
from holdfast.backends.lora.head import Head
from holdfast.backends.lora.lora_format import LoraWeights, start_lora
from holdfast.backends.lora.scoring import Weights, write_weights
from holdfast.domain.answers import kind_of, labels_in, spans_in
from holdfast.domain.ids import AdapterDigest, SnapshotDigest, TaskName
from holdfast.domain.retraining import TrainingPlan
from holdfast.domain.tasks import Kind, LoraSpec
from holdfast.errors import AdapterRefused
from holdfast.ports import Question
from holdfast.testing.tiny_model import make_tiny_model

LABELS = ("a", "b", "c")
TEXTS = (
    "",
    "where is my order",
    "Ünïcode 12.5% — 测试 order",
    "lone \ud800 surrogate",
    "x" * 30_000,
    "reset the   password\tof my account",
)
KINDS: tuple[Kind, ...] = ("classification", "multi-label", "extraction")


@pytest.fixture(scope="module")
def pin(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def engine(pin: tuple[str, str]) -> LoraEngine:
    return LoraEngine({"tiny": pin}, 1)


def make_adapter(folder: Path, engine: LoraEngine, kind: Kind, *, lora: bool, seed: int = 3) -> AdapterDigest:
    """A finished adapter with random weights."""
    base, spec = engine.base("tiny"), LoraSpec(rank=4, alpha=8.0, last_layers=1)
    chance = torch.Generator().manual_seed(seed)
    plan = TrainingPlan(
        key="k", task=TaskName("t"), base="tiny", base_digest=base.digest, labels=LABELS, max_tokens=32, rungs=("lora",), lora=spec,
        seed=seed, snapshot_digest=SnapshotDigest("s"), champion_digest=None, kind=kind,
    )  # fmt: skip
    outputs = 7 if kind == "extraction" else 3
    head = Head(torch.randn(outputs, base.hidden, generator=chance), torch.randn(outputs, generator=chance))
    weights = Weights("head", head)
    if lora:
        fresh, config = start_lora(base, spec, seed)
        moved = {name: tensor + 0.3 * torch.randn(tensor.shape, generator=chance) for name, tensor in fresh.tensors.items()}
        weights = Weights("lora", head, LoraWeights(moved, fresh.scale), config)
    folder.mkdir(parents=True)
    digest = finish_adapter(folder, write_weights(folder, weights, plan))
    write_json(folder / FINGERPRINT_NAME, engine.fingerprint(engine.read(folder)))
    return digest


@pytest.mark.parametrize("lora", [False, True])
def test_one_batch_of_every_kind_is_answered_as_each_text_alone(engine: LoraEngine, tmp_path: Path, lora: bool) -> None:
    digests = {kind: make_adapter(tmp_path / kind, engine, kind, lora=lora) for kind in KINDS}
    for kind, digest in digests.items():
        engine.load(digest, tmp_path / kind)
    asked = [(kind, Question(digest=digest, text=text)) for text in TEXTS for kind, digest in digests.items()]
    for (kind, question), answer in zip(asked, engine.answer([q for _, q in asked]), strict=True):
        alone = engine.answer([question])[0]
        assert answer.prediction.label == alone.prediction.label
        assert answer.prediction.confidence == pytest.approx(alone.prediction.confidence, abs=1e-5)
        assert kind_of(answer.prediction.label) == kind
        assert set(labels_in(answer.prediction.label)) <= set(LABELS)
        assert 0.0 < answer.prediction.confidence <= 1.0


@pytest.mark.parametrize(("kind", "lora"), [("multi-label", False), ("multi-label", True), ("extraction", False), ("extraction", True)])
def test_every_label_and_span_has_a_confidence_no_lower_than_that_of_the_whole(
    engine: LoraEngine, tmp_path: Path, kind: Kind, lora: bool
) -> None:
    digest = make_adapter(tmp_path / "one", engine, kind, lora=lora)
    engine.load(digest, tmp_path / "one")
    answers = engine.answer([Question(digest=digest, text=text) for text in TEXTS])
    assert any(answer.parts for answer in answers)
    for answer in answers:
        value = answer.prediction.label
        assert len(answer.parts) == len(spans_in(value) if kind == "extraction" else labels_in(value))
        assert all(answer.prediction.confidence - 1e-9 <= part <= 1.0 for part in answer.parts)


def test_the_confidence_of_a_label_is_the_probability_that_its_own_logit_gives(engine: LoraEngine, tmp_path: Path) -> None:
    digest = make_adapter(tmp_path / "one", engine, "multi-label", lora=False)
    engine.load(digest, tmp_path / "one")
    read = engine.read(tmp_path / "one")
    head = read.layout.head(read.row)
    for answer in engine.answer([Question(digest=digest, text=text) for text in TEXTS]):
        logits = head.logits(torch.tensor(np.asarray(answer.embedding, dtype=np.float32)))
        wanted = {label: float(torch.sigmoid(logit)) for label, logit in zip(LABELS, logits, strict=True) if logit > 0}
        assert dict(zip(labels_in(answer.prediction.label), answer.parts, strict=True)) == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize("text", TEXTS)
def test_spans_cut_their_text_exactly_and_do_not_overlap(engine: LoraEngine, tmp_path: Path, text: str) -> None:
    digest = make_adapter(tmp_path / "spans", engine, "extraction", lora=False)
    engine.load(digest, tmp_path / "spans")
    spans = spans_in(engine.answer([Question(digest=digest, text=text)])[0].prediction.label)
    assert all(span.text == text[span.start : span.end] and span.start < span.end for span in spans)
    assert all(one.end <= other.start for one, other in pairwise(spans))


def test_the_best_tags_are_those_that_trying_every_legal_path_finds() -> None:
    chance = np.random.default_rng(5)
    for _ in range(20):
        logits = chance.normal(size=(4, 5))  # two fields
        paths = np.array(np.meshgrid(*[range(5)] * 4)).reshape(4, -1).T
        legal = [p for p in paths if all(tag <= 2 or (i > 0 and p[i - 1] in (tag, tag - 2)) for i, tag in enumerate(p))]
        best = max(legal, key=lambda p: logits[np.arange(4), p].sum())
        assert best_tags(logits).tolist() == best.tolist()


@pytest.mark.parametrize("kind", ["multi-label", "extraction"])
def test_a_version_of_any_kind_must_answer_as_it_did_when_it_was_sealed(engine: LoraEngine, tmp_path: Path, kind: Kind) -> None:
    digest = make_adapter(tmp_path / "one", engine, kind, lora=True)
    sealed = engine.fingerprint(engine.read(tmp_path / "one"))
    other = replace(sealed, scores=tuple(tuple(s + 0.1 for s in row) for row in sealed.scores))
    write_json(tmp_path / "one" / FINGERPRINT_NAME, other)
    with pytest.raises(AdapterRefused, match="does not answer as it did"):
        engine.load(digest, tmp_path / "one")


def test_a_head_of_single_labels_is_refused_as_a_head_of_spans(engine: LoraEngine, tmp_path: Path) -> None:
    make_adapter(tmp_path / "one", engine, "classification", lora=False)
    manifest = (tmp_path / "one" / "manifest.json").read_text().replace('"kind": "classification"', '"kind": "extraction"')
    (tmp_path / "one" / "manifest.json").write_text(manifest)
    with pytest.raises(AdapterRefused, match="its head is"):
        engine.read(tmp_path / "one")
