"""Sets of labels and spans from the engine: beside single labels in one batch, with offsets that cut the text exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.backends.lora.decoding import best_tags
from holdfast.backends.lora.engine import LoraEngine
from holdfast.backends.lora.files import FINGERPRINT_NAME, write_json
from holdfast.domain.answers import kind_of, labels_in, spans_in
from holdfast.domain.ids import AdapterDigest
from holdfast.domain.tasks import Kind
from holdfast.errors import AdapterRefused
from holdfast.ports import Question

Sealed = Callable[..., AdapterDigest]
"""See the fixture ``sealed``."""
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


@pytest.fixture
def engine(pin: tuple[str, str]) -> LoraEngine:
    return LoraEngine({"tiny": pin}, 1)


@pytest.mark.parametrize("lora", [False, True])
def test_one_batch_of_every_kind_is_answered_as_each_text_alone(engine: LoraEngine, tmp_path: Path, lora: bool, sealed: Sealed) -> None:
    digests = {kind: sealed(tmp_path / kind, engine, kind=kind, rank=4 if lora else 0) for kind in KINDS}
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
    engine: LoraEngine, tmp_path: Path, kind: Kind, lora: bool, sealed: Sealed
) -> None:
    digest = sealed(tmp_path / "one", engine, kind=kind, rank=4 if lora else 0)
    engine.load(digest, tmp_path / "one")
    answers = engine.answer([Question(digest=digest, text=text) for text in TEXTS])
    assert any(answer.parts for answer in answers)
    for answer in answers:
        value = answer.prediction.label
        assert len(answer.parts) == len(spans_in(value) if kind == "extraction" else labels_in(value))
        assert all(answer.prediction.confidence - 1e-9 <= part <= 1.0 for part in answer.parts)


def test_the_confidence_of_a_label_is_the_probability_that_its_own_logit_gives(engine: LoraEngine, tmp_path: Path, sealed: Sealed) -> None:
    digest = sealed(tmp_path / "one", engine, kind="multi-label", rank=0)
    engine.load(digest, tmp_path / "one")
    read = engine.read(tmp_path / "one")
    head = read.layout.head(read.row)
    for answer in engine.answer([Question(digest=digest, text=text) for text in TEXTS]):
        logits = head.logits(torch.tensor(np.asarray(answer.embedding, dtype=np.float32)))
        wanted = {label: float(torch.sigmoid(logit)) for label, logit in zip(LABELS, logits, strict=True) if logit > 0}
        assert dict(zip(labels_in(answer.prediction.label), answer.parts, strict=True)) == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize("text", TEXTS)
def test_spans_cut_their_text_exactly_and_do_not_overlap(engine: LoraEngine, tmp_path: Path, text: str, sealed: Sealed) -> None:
    digest = sealed(tmp_path / "spans", engine, kind="extraction", rank=0)
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
def test_a_version_of_any_kind_must_answer_as_it_did_when_it_was_sealed(
    engine: LoraEngine, tmp_path: Path, kind: Kind, sealed: Sealed
) -> None:
    digest = sealed(tmp_path / "one", engine, kind=kind)
    told = engine.fingerprint(engine.read(tmp_path / "one"))
    other = replace(told, scores=tuple(tuple(s + 0.1 for s in row) for row in told.scores))
    write_json(tmp_path / "one" / FINGERPRINT_NAME, other)
    with pytest.raises(AdapterRefused, match="does not answer as it did"):
        engine.load(digest, tmp_path / "one")


def test_a_head_of_single_labels_is_refused_as_a_head_of_spans(engine: LoraEngine, tmp_path: Path, sealed: Sealed) -> None:
    sealed(tmp_path / "one", engine, rank=0)
    manifest = (tmp_path / "one" / "manifest.json").read_text().replace('"kind": "classification"', '"kind": "extraction"')
    (tmp_path / "one" / "manifest.json").write_text(manifest)
    with pytest.raises(AdapterRefused, match="its head is"):
        engine.read(tmp_path / "one")
