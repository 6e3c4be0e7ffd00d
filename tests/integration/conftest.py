"""What several files of real parts share: a tiny base, and adapters on it that were never trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.domain.ids import AdapterDigest
from holdfast.domain.tasks import Kind, LoraSpec
from holdfast.testing.record_builders import a_plan
from holdfast.testing.tiny_model import make_tiny_model

if TYPE_CHECKING:  # torch is slow to import, and few files here need it
    from holdfast.backends.lora.engine import LoraEngine


@pytest.fixture(scope="module")
def pin(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Path and digest of the base `tiny`."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def sealed() -> Callable[..., AdapterDigest]:
    """Writes a finished adapter with random weights and the fingerprint of what it says, as if it had been judged."""
    return seal


def seal(
    folder: Path, engine: LoraEngine, *, seed: int = 3, rank: int = 4, layers: int = 1, kind: Kind = "classification"
) -> AdapterDigest:
    """On the base `tiny`, with the labels a, b, c; rank 0 is a head alone. The folder is made."""
    import torch

    from holdfast.backends.lora.files import FINGERPRINT_NAME, finish_adapter, write_json
    from holdfast.backends.lora.head import Head
    from holdfast.backends.lora.lora_format import LoraWeights, start_lora
    from holdfast.backends.lora.scoring import Weights, write_weights

    base, chance = engine.base("tiny"), torch.Generator().manual_seed(seed)
    spec = LoraSpec(rank=max(rank, 1), alpha=8.0, last_layers=layers)
    plan = a_plan(base="tiny", base_digest=base.digest, labels=("a", "b", "c"), max_tokens=32, lora=spec, seed=seed, kind=kind)
    outputs = 7 if kind == "extraction" else 3  # begin and inside of each field, and outside
    head = Head(torch.randn(outputs, base.hidden, generator=chance), torch.randn(outputs, generator=chance))
    weights = Weights("head", head)
    if rank:
        lora, config = start_lora(base, spec, seed)
        moved = {name: tensor + 0.3 * torch.randn(tensor.shape, generator=chance) for name, tensor in lora.tensors.items()}
        weights = Weights("lora", head, LoraWeights(moved, lora.scale), config)
    folder.mkdir(parents=True)
    digest = finish_adapter(folder, write_weights(folder, weights, plan))
    write_json(folder / FINGERPRINT_NAME, engine.fingerprint(engine.read(folder)))
    return digest
