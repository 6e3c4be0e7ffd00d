"""The frozen base model: opened once, checked by digest, tokenised by its own tokenizer."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holdfast.domain.captures import MAX_TEXT_CHARS
from holdfast.errors import BaseModelRefused

WEIGHTS_NAME = "model.safetensors"
Offsets = Sequence[tuple[int, int]]
"""Per token where it begins and ends in its text, in characters; the same twice for a special token."""
_PACKAGE = "package:"
_checked: dict[tuple[str, int, int], str] = {}
_open: dict[tuple[str, str, str], BaseModel] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerWeights:
    """Weights of one encoder layer; h = hidden, m = intermediate. Query, key and value are fused into one matrix."""

    qkv: Tensor
    """[3h, h]."""
    qkv_bias: Tensor
    """[3h]."""
    out: Tensor
    """[h, h]."""
    out_bias: Tensor
    norm: tuple[Tensor, Tensor]
    """Weight and bias of the norm after attention, [h] each."""
    up: Tensor
    """[m, h]."""
    up_bias: Tensor
    down: Tensor
    """[h, m]."""
    down_bias: Tensor
    last_norm: tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BaseModel:
    """One frozen BERT encoder with its tokenizer. Shared by everything in a process that opens the same pin."""

    name: str
    digest: str
    """SHA-256 of the weights, 64 hexadecimal digits."""
    module: Any
    """transformers' BertModel, in evaluation mode, without gradients; its weights are the ones below."""
    tokenizer: Any
    layers: tuple[LayerWeights, ...]
    words: Tensor
    """[vocabulary, h]; the vector of token type 0 is added to `positions`, not to these."""
    positions: Tensor
    """[positions, h]."""
    first_norm: tuple[Tensor, Tensor]
    head_count: int
    norm_epsilon: float

    @property
    def hidden(self) -> int:
        """Width of the pooled vector."""
        return int(self.words.shape[1])

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors that an answer goes through."""
        layers = [(w.qkv, w.qkv_bias, w.out, w.out_bias, *w.norm, w.up, w.up_bias, w.down, w.down_bias, *w.last_norm) for w in self.layers]
        return (self.words, self.positions, *self.first_norm, *(tensor for layer in layers for tensor in layer))

    @classmethod
    def open(cls, name: str, path: str, sha256: str) -> BaseModel:
        """The base at ``path`` (a folder, or ``package:NAME``), if its weights have the pinned digest.

        Raises:
            BaseModelRefused: not there, another digest, not safetensors, or not an encoder this engine runs.
        """
        wanted = sha256.removeprefix("sha256:")
        with _lock:
            key = (name, path, wanted)
            if key not in _open:
                folder = _folder(name, path)
                _check_digest(name, folder, wanted)
                _check_architecture(name, folder)
                _open[key] = _read(name, folder, wanted)
            return _open[key]

    def token_ids(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Token ids per text, with the two special tokens, at most ``max_tokens``. Any text is allowed, the empty one too."""
        return [ids for ids, _ in self.counted_ids(texts, max_tokens)]

    def counted_ids(self, texts: Sequence[str], max_tokens: int) -> list[tuple[list[int], int]]:
        """As ``token_ids``, each with the number of tokens that the whole text has."""
        if not texts:
            return []
        limit = min(max_tokens, int(self.positions.shape[0]))
        clean = [clean_text(text) for text in texts]
        made = self.tokenizer(clean, truncation=False, padding=False, return_attention_mask=False)
        whole: list[list[int]] = made["input_ids"]
        return [(ids if len(ids) <= limit else ids[: limit - 1] + ids[-1:], len(ids)) for ids in whole]  # the last one closes a text

    def offsets(self, texts: Sequence[str], max_tokens: int) -> list[Offsets]:
        """Where each token of ``token_ids`` begins and ends in its text, in characters; (0, 0) for the special tokens."""
        limit = min(max_tokens, int(self.positions.shape[0]))
        clean = [clean_text(text) for text in texts]
        options = {"return_attention_mask": False, "return_offsets_mapping": True}
        made = self.tokenizer(clean, truncation=True, max_length=limit, padding=False, **options)
        places: list[Offsets] = made["offset_mapping"]
        return places


def clean_text(text: str) -> str:
    """The text as it is tokenised: cut before tokenising, and free of lone surrogates, which have no UTF-8."""
    return text[:MAX_TEXT_CHARS].encode("utf-8", "replace").decode("utf-8")


def use_threads(count: int) -> None:
    """Let torch use ``count`` threads in this process, and the tokenizer none of its own."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # noqa: TID251 - read by the Rust tokenizer, not by us
    torch.set_num_threads(count)


def transformers_offline() -> Any:
    """The transformers library, told never to ask a hub."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # noqa: TID251 - must be set before huggingface_hub is imported
    os.environ["TRANSFORMERS_OFFLINE"] = "1"  # noqa: TID251
    library = importlib.import_module("transformers")
    library.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return library


def _folder(name: str, path: str) -> Path:
    if not path.startswith(_PACKAGE):
        return Path(path).expanduser()
    package = path.removeprefix(_PACKAGE)
    try:
        return Path(str(importlib.import_module(package).get_model_path()))
    except (ImportError, AttributeError) as error:
        raise BaseModelRefused(base=name, reason=f"the package {package} that carries it cannot be imported ({error})") from error


def _check_digest(name: str, folder: Path, wanted: str) -> None:
    weights = folder / WEIGHTS_NAME
    try:
        facts = weights.stat()
        key = (str(weights), facts.st_mtime_ns, facts.st_size)
        if key not in _checked:
            with weights.open("rb") as file:
                _checked[key] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BaseModelRefused(base=name, reason=f"{weights} cannot be read ({error.strerror})") from error
    if _checked[key] != wanted:
        raise BaseModelRefused(base=name, reason=f"its weights have the digest {_checked[key]}, the pin says {wanted}")


def _check_architecture(name: str, folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelRefused(base=name, reason=f"config.json cannot be read ({error})") from error
    found = (config.get("model_type"), config.get("hidden_act", "gelu"), config.get("position_embedding_type", "absolute"))
    if found != ("bert", "gelu", "absolute"):
        raise BaseModelRefused(base=name, reason=f"it is {found}; only a BERT encoder with GELU and absolute positions is run here")
    if "auto_map" in config:
        raise BaseModelRefused(base=name, reason="its config asks for code of its own (auto_map)")


def _read(name: str, folder: Path, digest: str) -> BaseModel:
    library = transformers_offline()
    options: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        module = library.AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **options)
        tokenizer = library.AutoTokenizer.from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise BaseModelRefused(base=name, reason=f"it cannot be loaded ({error})") from error
    module.eval().requires_grad_(False)
    parts = module.embeddings
    return BaseModel(
        name=name, digest=digest, module=module, tokenizer=tokenizer,
        layers=tuple(_layer(layer) for layer in module.encoder.layer),
        words=parts.word_embeddings.weight,
        positions=(parts.position_embeddings.weight + parts.token_type_embeddings.weight[0]).detach(),
        first_norm=_norm(parts.LayerNorm), head_count=module.config.num_attention_heads,
        norm_epsilon=module.config.layer_norm_eps,
    )  # fmt: skip


def _layer(layer: Any) -> LayerWeights:
    own, made, mlp = layer.attention.self, layer.attention.output, layer.output
    three = (own.query, own.key, own.value)
    qkv = torch.cat([part.weight for part in three]).detach()  # 3 x [h, h] -> [3h, h]
    for part, rows in zip(three, qkv.chunk(3), strict=True):
        part.weight.data = rows  # one copy in memory: the module looks into the fused matrix
    return LayerWeights(
        qkv=qkv, qkv_bias=torch.cat([part.bias for part in three]).detach(),
        out=made.dense.weight, out_bias=made.dense.bias, norm=_norm(made.LayerNorm),
        up=layer.intermediate.dense.weight, up_bias=layer.intermediate.dense.bias,
        down=mlp.dense.weight, down_bias=mlp.dense.bias, last_norm=_norm(mlp.LayerNorm),
    )  # fmt: skip


def _norm(module: Any) -> tuple[Tensor, Tensor]:
    return module.weight, module.bias
