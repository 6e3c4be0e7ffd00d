"""LoRA in PEFT's own names and files, so that stock PEFT reads what we write, and the other way about only what we allow."""

from __future__ import annotations

import importlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from holdfast.backends.lora.base_model import BaseModel
from holdfast.backends.lora.encoder import LayerLora, Pair
from holdfast.backends.lora.files import LORA_CONFIG_NAME, LORA_NAME, load_tensors
from holdfast.domain.tasks import LoraSpec
from holdfast.errors import AdapterRefused

PARTS: dict[Literal["qkv", "out", "up", "down"], tuple[str, ...]] = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "out": ("attention.output.dense",),
    "up": ("intermediate.dense",),
    "down": ("output.dense",),
}
"""Our fused linear layers and the modules they stand for."""
TARGETS = ("dense", "key", "query", "value")
_PREFIX = "base_model.model.encoder.layer."
_NAME = re.compile(re.escape(_PREFIX) + r"(\d+)\.([a-z.]+)\.lora_([AB])\.weight")
_MUST_BE_EMPTY = (
    "auto_mapping", "modules_to_save", "rank_pattern", "alpha_pattern", "use_dora", "use_rslora", "layer_replication",
    "trainable_token_indices", "target_parameters", "megatron_config", "fan_in_fan_out", "lora_bias", "exclude_modules",
    "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "corda_config", "kasa_config", "velora_config",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class LoraWeights:
    """All LoRA matrices of an adapter under PEFT's names, and the factor of their product."""

    tensors: Mapping[str, Tensor]
    scale: float
    """alpha / r."""

    @property
    def rank(self) -> int:
        """r, the same for every module."""
        return next(len(tensor) for name, tensor in self.tensors.items() if name.endswith("lora_A.weight"))

    @property
    def first_layer(self) -> int:
        """The lowest encoder layer that carries LoRA."""
        return min(int(name.removeprefix(_PREFIX).split(".")[0]) for name in self.tensors)


def matrix_name(layer: int, module: str, side: str) -> str:
    """PEFT's name of a matrix; ``side`` is A or B."""
    return f"{_PREFIX}{layer}.{module}.lora_{side}.weight"


def start_lora(base: BaseModel, spec: LoraSpec, seed: int) -> tuple[LoraWeights, dict[str, Any]]:
    """Fresh LoRA on every linear of the last layers, named and initialised by PEFT (A uniform, B zero), and its config as JSON."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    count = len(base.layers)
    layers = list(range(count - min(spec.last_layers, count), count))
    config = LoraConfig(
        r=spec.rank, lora_alpha=spec.alpha, lora_dropout=0.0, target_modules=list(TARGETS), layers_to_transform=layers,
        layers_pattern="layer", bias="none",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for a property that has a new name
        torch.manual_seed(seed)
        model = get_peft_model(_shell(base), config)
        state = get_peft_model_state_dict(model, save_embedding_layers=False)
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    plain.update(base_model_name_or_path=base.name, inference_mode=True, peft_type="LORA", task_type=None)
    return LoraWeights({name: tensor.detach().clone() for name, tensor in state.items()}, spec.alpha / spec.rank), plain


def fuse(weights: LoraWeights) -> dict[int, LayerLora]:
    """Encoder layer to its LoRA, query, key and value side by side and the scale in the B matrices. Differentiable."""
    layers = sorted({int(name.removeprefix(_PREFIX).split(".")[0]) for name in weights.tensors})
    return {number: LayerLora(**{part: _pair(weights, number, modules) for part, modules in PARTS.items()}) for number in layers}


def write_config(folder: Path, plain: Mapping[str, Any]) -> None:
    """Write ``adapter_config.json`` with sorted keys, so that equal configs are equal bytes."""
    (folder / LORA_CONFIG_NAME).write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_lora(folder: Path, base: BaseModel) -> LoraWeights:
    """The LoRA of an adapter folder, if its config asks for nothing but plain LoRA and every shape fits the base.

    Any of the encoder's linear layers may carry it. The base named in the config is ignored. Raises AdapterRefused.
    """
    config = _config(folder)
    tensors = load_tensors(folder / LORA_NAME)
    layers = range(len(base.layers)) if config.get("layers_to_transform") is None else config["layers_to_transform"]
    rank = config["r"]
    wanted = {
        matrix_name(layer, module, side): shape
        for layer in layers
        for module in _targeted(config["target_modules"])
        for side, shape in zip("AB", _shapes(base, module, rank), strict=True)
    }
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if not wanted or found != wanted or not all(0 <= layer < len(base.layers) for layer in layers):
        odd = sorted(set(found.items()) ^ set(wanted.items()))
        raise AdapterRefused(folder=folder, reason=f"its matrices do not fit the base {base.name}, first at {odd[:1]}")
    return LoraWeights(tensors, config["lora_alpha"] / rank)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / LORA_CONFIG_NAME).read_text(encoding="utf-8"))
        asked = [name for name in _MUST_BE_EMPTY if config.get(name)]
        plain = config["peft_type"] == "LORA" and config.get("bias") == "none"
        targets = isinstance(config["target_modules"], list) and all(_targeted([one]) for one in config["target_modules"])
        sizes = isinstance(config["r"], int) and 1 <= config["r"] <= 256 and 0 < float(config["lora_alpha"]) <= 1e4
        chosen = config.get("layers_to_transform")
        layers = chosen is None or (bool(chosen) and all(isinstance(one, int) for one in chosen))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise AdapterRefused(folder=folder, reason=f"{LORA_CONFIG_NAME} cannot be read ({error!r})") from error
    if asked or not plain or not targets or not sizes or not layers:
        raise AdapterRefused(folder=folder, reason=f"{LORA_CONFIG_NAME} asks for more than plain LoRA {asked or ''}".rstrip())
    return config


def _targeted(targets: Sequence[str]) -> list[str]:
    """Modules of a layer that PEFT means by these names: a name stands for every module whose path ends in it."""
    modules = [one for modules in PARTS.values() for one in modules]
    return [one for one in modules if any(f".{one}".endswith(f".{target}") for target in targets)]


def _shapes(base: BaseModel, module: str, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    h, m = base.hidden, base.layers[0].up.shape[0]
    into, out = {"intermediate.dense": (h, m), "output.dense": (m, h)}.get(module, (h, h))
    return (rank, into), (out, rank)


def _pair(weights: LoraWeights, layer: int, modules: tuple[str, ...]) -> Pair:
    a = [weights.tensors[matrix_name(layer, module, "A")] for module in modules]
    b = [weights.tensors[matrix_name(layer, module, "B")] for module in modules]
    return Pair(torch.cat(a) if len(a) > 1 else a[0], tuple(one * weights.scale for one in b))


def _shell(base: BaseModel) -> Any:
    """A model of the same shape for PEFT to wrap, without memory or time for weights of its own; the base stays untouched."""
    importlib.import_module("transformers")
    with torch.device("meta"):
        shell = type(base.module)(base.module.config)
    for layer in shell.encoder.layer:
        layer.to_empty(device="cpu")
    return shell
