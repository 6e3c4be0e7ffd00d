"""The engine: equal to stock PEFT, mixed batches, proof by fingerprint, and refusal of everything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from holdfast.backends.lora.base_model import BaseModel
from holdfast.backends.lora.engine import LoraEngine
from holdfast.backends.lora.files import HEAD_NAME, LORA_CONFIG_NAME, LORA_NAME, finish_adapter
from holdfast.domain.captures import Prediction
from holdfast.domain.ids import AdapterDigest, bare
from holdfast.errors import AdapterRefused, BaseModelRefused, NotFound
from holdfast.ports import Question
from holdfast.testing.tiny_model import make_tiny_model

Sealed = Callable[..., AdapterDigest]
"""See the fixture ``sealed``."""
LABELS = ("a", "b", "c")
TEXTS = ("", "where is my order", "please reset the password of my account", "x" * 30_000, "lone \ud800 surrogate", "late parcel lost 12 %")


@pytest.fixture
def engine(pin: tuple[str, str]) -> LoraEngine:
    return LoraEngine({"tiny": pin}, 1)


def peft_logits(pin: tuple[str, str], folder: Path, texts: tuple[str, ...]) -> Any:
    """What stock transformers and stock PEFT make of our folder, one text at a time."""
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pin[0])
    model = AutoModel.from_pretrained(pin[0])
    if (folder / LORA_NAME).exists():
        model = PeftModel.from_pretrained(model, folder)
    model.eval()
    head = load_file(folder / HEAD_NAME)
    rows = []
    with torch.no_grad():
        for text in texts:
            made = tokenizer([text], truncation=True, max_length=32, return_tensors="pt")
            rows.append(model(**made).last_hidden_state.mean(1) @ head["weight"].T + head["bias"])
    return torch.cat(rows).numpy()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_mixed_batch_is_answered_as_stock_peft_answers_each_adapter(
    pin: tuple[str, str], engine: LoraEngine, tmp_path: Path, sealed: Sealed
) -> None:
    shapes = {"one": (1, 4, 1), "two": (2, 8, 2), "bare": (3, 0, 0)}
    adapters = {}
    for name, (seed, rank, layers) in shapes.items():
        digest = sealed(tmp_path / name, engine, seed=seed, rank=rank, layers=layers)
        engine.load(digest, tmp_path / name)
        adapters[name] = digest
    texts = tuple(text for text in TEXTS if "\ud800" not in text)
    pairs = [(name, text) for text in texts for name in shapes]
    with engine._residency.claim(adapters.values()) as steps:
        here = next(steps)  # all of them have room in the banks
        outputs = engine._outputs([(here[adapters[name]], text) for name, text in pairs])
    for name in shapes:
        ours = np.concatenate([out.logits for (n, _), out in zip(pairs, outputs, strict=True) if n == name])
        np.testing.assert_allclose(ours, peft_logits(pin, tmp_path / name, texts), atol=1e-5)


def test_answers_come_in_the_order_asked_and_any_text_is_answered(engine: LoraEngine, tmp_path: Path, sealed: Sealed) -> None:
    digests = [sealed(tmp_path / str(seed), engine, seed=seed, rank=4 * (seed % 2)) for seed in range(4)]
    for seed, digest in enumerate(digests):
        engine.load(digest, tmp_path / str(seed))
    asked = [Question(digest=digest, text=text) for text in TEXTS for digest in digests]
    together = engine.answer(asked)
    for question, answer in zip(asked, together, strict=True):
        alone = engine.answer([question])[0]
        assert alone.prediction.label == answer.prediction.label
        assert alone.prediction.confidence == pytest.approx(answer.prediction.confidence, abs=1e-5)
        assert np.asarray(answer.embedding).dtype == np.float16
    assert engine.answer([]) == ()


def test_a_cache_of_embeddings_changes_no_answer(pin: tuple[str, str], engine: LoraEngine, tmp_path: Path, sealed: Sealed) -> None:
    digest = sealed(tmp_path / "bare", engine, seed=1, rank=0)
    for _ in range(2):  # the second finds the vectors on disk
        cached = LoraEngine({"tiny": pin}, 1, cache_folder=tmp_path / "cache")
        for one in (engine, cached):
            one.load(digest, tmp_path / "bare")
        asked = [Question(digest=digest, text=text) for text in TEXTS]
        for with_cache, without in zip(cached.answer(asked), engine.answer(asked), strict=True):
            assert with_cache.prediction.label == without.prediction.label
            assert with_cache.prediction.confidence == pytest.approx(without.prediction.confidence, abs=1e-5)


def test_an_adapter_that_is_not_loaded_is_not_found(engine: LoraEngine) -> None:
    with pytest.raises(NotFound):
        engine.answer([Question(digest=AdapterDigest("sha256:none"), text="x")])


def test_an_answer_says_how_many_tokens_its_text_has_and_how_many_were_read(engine: LoraEngine, tmp_path: Path, sealed: Sealed) -> None:
    digest = sealed(tmp_path / "a", engine, seed=1)
    engine.load(digest, tmp_path / "a")
    limit = engine.read(tmp_path / "a").manifest.max_tokens
    short, long = engine.answer([Question(digest=digest, text="order refund"), Question(digest=digest, text="order " * 500)])
    assert short.tokens == (4, 4)
    assert long.tokens == (502, limit)
    cut = engine.answer([Question(digest=digest, text="order " * (limit - 2))])[0]
    assert (cut.prediction.label, list(cut.embedding)) == (long.prediction.label, list(long.embedding))


def test_a_base_is_asked_by_its_name_beside_adapters_and_an_unknown_one_is_not_found(
    engine: LoraEngine, tmp_path: Path, sealed: Sealed
) -> None:
    digest = sealed(tmp_path / "a", engine, seed=1)
    engine.load(digest, tmp_path / "a")
    name = engine.read(tmp_path / "a").base.name
    answers = engine.answer([Question(digest=d, text="where is my order") for d in (digest, bare(name), digest)])
    assert answers[1].prediction == Prediction(label="", confidence=1.0)
    assert list(answers[1].embedding) != list(answers[0].embedding)
    assert engine.loaded() == {digest}
    with pytest.raises(NotFound):
        engine.answer([Question(digest=bare("nowhere"), text="x")])


def break_head_rows(folder: Path) -> None:
    save_file({"weight": torch.zeros(2, 32), "bias": torch.zeros(2)}, folder / HEAD_NAME)


def put_nan(folder: Path) -> None:
    tensors = load_file(folder / LORA_NAME)
    tensors[min(tensors)][0, 0] = float("nan")
    save_file(tensors, folder / LORA_NAME)


def change_rank(folder: Path) -> None:
    plain = json.loads((folder / LORA_CONFIG_NAME).read_text())
    (folder / LORA_CONFIG_NAME).write_text(json.dumps({**plain, "r": 16}))


def ask_for_code(folder: Path) -> None:
    plain = json.loads((folder / LORA_CONFIG_NAME).read_text())
    (folder / LORA_CONFIG_NAME).write_text(json.dumps({**plain, "auto_mapping": {"parent_library": "os"}}))


def pickle_it(folder: Path) -> None:
    torch.save({"weight": torch.zeros(3, 32)}, folder / HEAD_NAME)


def truncate(folder: Path) -> None:
    content = (folder / LORA_NAME).read_bytes()
    (folder / LORA_NAME).write_bytes(content[: len(content) // 2])


def change_a_weight(folder: Path) -> None:
    tensors = load_file(folder / HEAD_NAME)
    tensors["weight"][0, 0] += 1.0
    save_file(tensors, folder / HEAD_NAME)


BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (break_head_rows, "head"),
    (put_nan, "finite"),
    (change_rank, "do not fit"),
    (ask_for_code, "more than plain LoRA"),
    (pickle_it, "safetensors"),
    (truncate, "safetensors"),
    (change_a_weight, "does not answer as it did"),
]


@pytest.mark.parametrize(("harm", "said"), BROKEN)
def test_a_broken_adapter_is_refused_even_with_a_fitting_manifest_and_nothing_changes(
    engine: LoraEngine, tmp_path: Path, harm: Callable[[Path], None], said: str, sealed: Sealed
) -> None:
    good = sealed(tmp_path / "good", engine, seed=1)
    engine.load(good, tmp_path / "good")
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    harm(tmp_path / "bad")
    with pytest.raises(AdapterRefused, match="digest in the manifest"):
        engine.load(good, tmp_path / "bad")
    digest = reseal(tmp_path / "bad")
    with pytest.raises(AdapterRefused, match=said):
        engine.load(digest, tmp_path / "bad")
    assert engine.loaded() == {good}


def reseal(folder: Path) -> AdapterDigest:
    """Write a manifest that names the bytes as they are now, as a forger would."""
    from dataclasses import replace

    from holdfast.backends.lora.files import file_digest
    from holdfast.domain.adapters import Manifest
    from holdfast.domain.records import from_plain

    manifest = from_plain(Manifest, json.loads((folder / "manifest.json").read_text()))
    return finish_adapter(folder, replace(manifest, files={name: file_digest(folder / name) for name in manifest.files}))


def test_an_adapter_without_manifest_or_under_another_digest_is_refused(engine: LoraEngine, tmp_path: Path, sealed: Sealed) -> None:
    digest = sealed(tmp_path / "one", engine, seed=1)
    with pytest.raises(AdapterRefused, match="not sha256:other"):
        engine.load(AdapterDigest("sha256:other"), tmp_path / "one")
    (tmp_path / "one" / "manifest.json").unlink()
    with pytest.raises(AdapterRefused, match=r"manifest\.json"):
        engine.load(digest, tmp_path / "one")


def test_an_adapter_of_another_base_is_refused(engine: LoraEngine, tmp_path: Path, sealed: Sealed) -> None:
    digest = sealed(tmp_path / "one", engine, seed=1)
    other = make_tiny_model(tmp_path / "other", seed=9)
    with pytest.raises(AdapterRefused, match="was trained on"):
        LoraEngine({"tiny": other}, 1).load(digest, tmp_path / "one")


@pytest.mark.parametrize("what", ["digest", "absent", "package", "architecture"])
def test_a_base_that_is_not_the_pinned_one_is_refused(tmp_path: Path, what: str) -> None:
    path, sha = make_tiny_model(tmp_path / "base")
    if what == "digest":
        sha = "0" * 64
    if what == "absent":
        path = str(tmp_path / "nowhere")
    if what == "package":
        path = "package:no_such_package_here"
    if what == "architecture":
        (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(BaseModelRefused):
        BaseModel.open(f"base-{what}", path, sha)
