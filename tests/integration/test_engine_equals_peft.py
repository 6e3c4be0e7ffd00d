"""The engine gives the logits of stock PEFT, whatever the ranks, targets, heads and lengths that one batch mixes, by every way."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from holdfast.backends.lora.engine import LoraEngine, ServingOptions
from holdfast.backends.lora.favourite import merged_way
from holdfast.backends.lora.files import FINGERPRINT_NAME, HEAD_NAME, LORA_CONFIG_NAME, LORA_NAME, file_digest, finish_adapter, write_json
from holdfast.backends.lora.paths import WayName, choose_way, open_way
from holdfast.backends.lora.serving_pass import run_pass
from holdfast.domain.adapters import Manifest
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.tasks import Kind
from holdfast.testing.tiny_model import WORDS, make_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
_numbers = itertools.count()
TARGETS = (
    ["query", "value"],
    ["key"],
    ["query", "key", "value", "dense"],
    ["intermediate.dense", "attention.output.dense"],
    ["output.dense"],
)


class Form(NamedTuple):
    """What an adapter is made of."""

    rank: int
    alpha: int
    targets: list[str]
    layers: list[int] | None
    labels: int
    kind: Kind
    seed: int


FORMS = st.builds(
    Form,
    rank=st.sampled_from([1, 3, 4, 8, 20]), alpha=st.sampled_from([1, 8, 17]), targets=st.sampled_from(TARGETS),
    layers=st.sampled_from([None, [0], [1], [0, 1]]), labels=st.integers(2, 9),
    kind=st.sampled_from(["classification", "multi-label", "extraction"]), seed=st.integers(0, 10_000),
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(WORDS), max_size=45).map(" ".join)


@pytest.fixture(scope="module")
def pin(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("code")


@pytest.fixture(scope="module", params=get_args(WayName))
def engine(request: pytest.FixtureRequest, pin: tuple[str, str], code: Path) -> Iterator[LoraEngine]:
    made = LoraEngine({"tiny": pin}, 1, serving=ServingOptions(code_folder=code, way=request.param, bank_bytes=1 << 24))
    if open_way(made.base("tiny"), request.param, code) is None:
        pytest.skip(f"the way {request.param} does not work on this machine")
    yield made
    made.close()


def make_adapter(folder: Path, pin: tuple[str, str], form: Form, engine: LoraEngine) -> tuple[AdapterDigest, Any]:
    """A folder that PEFT itself saved, with a head, and the PEFT model that it was saved from."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    torch.manual_seed(form.seed)
    layers = [0, 1] if form.layers is None and "dense" in form.targets else form.layers  # else PEFT takes the pooler's too
    config = LoraConfig(
        r=form.rank, lora_alpha=form.alpha, target_modules=form.targets, layers_to_transform=layers,
        layers_pattern=None if layers is None else "layer",
    )  # fmt: skip
    model = get_peft_model(AutoModel.from_pretrained(pin[0]), config).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    plain = json.loads((folder / LORA_CONFIG_NAME).read_text())
    (folder / LORA_CONFIG_NAME).write_text(json.dumps({**plain, "auto_mapping": None}))  # names a class to import: refused, as it must be
    manifest = Manifest(
        task=TaskName("t"), rung="lora", base="tiny", base_digest=engine.base("tiny").digest, kind=form.kind, max_tokens=32,
        labels=tuple(f"l{i}" for i in range(form.labels)), files={},
    )  # fmt: skip
    save_file({"weight": 0.3 * torch.randn(manifest.output_count, 32), "bias": torch.randn(manifest.output_count)}, folder / HEAD_NAME)
    files = {name: file_digest(folder / name) for name in (HEAD_NAME, LORA_NAME, LORA_CONFIG_NAME)}
    digest = finish_adapter(folder, Manifest(**{**{k: getattr(manifest, k) for k in manifest.__dataclass_fields__}, "files": files}))
    write_json(folder / FINGERPRINT_NAME, engine.fingerprint(engine.read(folder)))
    return digest, model


def peft_logits(model: Any, engine: LoraEngine, folder: Path, text: str) -> Any:
    """[1, outputs] of a head on the pooled vector, [tokens, outputs] of one on tokens."""
    from safetensors.torch import load_file

    head, adapter = load_file(folder / HEAD_NAME), engine.read(folder)
    ids = adapter.base.token_ids([text], 32)
    with torch.no_grad():
        states = model(input_ids=torch.tensor(ids)).last_hidden_state[0]
    states = states if adapter.manifest.kind == "extraction" else states.mean(0, keepdim=True)
    return (states @ head["weight"].T + head["bias"]).numpy()


@settings(
    max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate],  # an example makes models: shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(forms=st.lists(FORMS, min_size=1, max_size=4), rows=st.lists(st.tuples(st.integers(0, 3), TEXTS), min_size=1, max_size=14))
def test_every_row_of_a_mixed_batch_has_the_logits_of_peft(
    engine: LoraEngine, pin: tuple[str, str], tmp_path: Path, forms: list[Form], rows: list[tuple[int, str]]
) -> None:
    made = {}
    for form in forms:
        folder = tmp_path / str(next(_numbers))
        digest, model = make_adapter(folder, pin, form, engine)
        engine.load(digest, folder)
        made[digest] = (folder, model)
    digests = list(made)
    asked = [(digests[number % len(digests)], text) for number, text in rows]
    with engine._residency.claim({digest for digest, _ in asked}) as steps:
        here = next(steps)
        outputs = engine._outputs([(here[digest], text) for digest, text in asked])
    for (digest, text), output in zip(asked, outputs, strict=True):
        folder, model = made[digest]
        np.testing.assert_allclose(output.logits, peft_logits(model, engine, folder, text), atol=1e-5, rtol=1e-5)
    for digest in digests:
        engine.unload(digest)


def test_many_segments_of_one_form_are_answered_as_each_alone(engine: LoraEngine, pin: tuple[str, str], tmp_path: Path) -> None:
    adapters = []
    for seed in range(12):  # enough for the gathered way of torch
        folder = tmp_path / str(seed)
        make_adapter(folder, pin, Form(4, 8, ["query", "key", "dense"], [0, 1], 3, "classification", seed), engine)
        adapters.append(engine.read(folder))
    pairs = [(adapter, " ".join(WORDS[: 1 + 3 * (n % 5)])) for n, adapter in enumerate(adapters * 2)]
    for pair, output in zip(pairs, engine._outputs(pairs), strict=True):
        np.testing.assert_allclose(output.logits, engine._outputs([pair])[0].logits, atol=1e-5)


def test_an_adapter_with_a_merged_base_answers_as_before(engine: LoraEngine, pin: tuple[str, str], tmp_path: Path) -> None:
    form = Form(8, 16, ["query", "value", "dense"], [1], 4, "classification", 5)
    make_adapter(tmp_path / "one", pin, form, engine)
    adapter = engine.read(tmp_path / "one")
    way = choose_way(adapter.base, engine._options.code_folder, engine._options.way)
    ids = adapter.base.token_ids(["where is my order", "thanks"], 32)
    plain = run_pass(adapter.base, way, [adapter] * 2, ids, False)
    merged = run_pass(adapter.base, merged_way(adapter, adapter.row, way), [adapter] * 2, ids, True)
    bare = run_pass(adapter.base, way, [adapter] * 2, ids, True)
    for one, other, without in zip(plain, merged, bare, strict=True):
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)
        assert np.abs(one.logits - without.logits).max() > 1e-2
