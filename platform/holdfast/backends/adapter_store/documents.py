"""The JSON files of an adapter folder, each read with a closed schema: an unknown key is a refusal."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from holdfast.domain.adapters import MANIFEST_NAME, WEIGHT_FILES, Fingerprint, Manifest, fingerprint_from
from holdfast.domain.answers import labels_in
from holdfast.domain.ids import is_task_name
from holdfast.domain.records import from_plain
from holdfast.domain.tasks import Kind, Rung
from holdfast.errors import AdapterRefused

FINGERPRINT_NAME = "fingerprint.json"
MAX_JSON_BYTES = 4 << 20
MAX_RANK = 256
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

FREE_KEYS = {
    "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r",
    "revision", "target_modules", "task_type",
}  # fmt: skip
"""Keys of `adapter_config.json` that may have a value. The base it names is ignored: the manifest names it, by digest."""
EMPTY_KEYS = {
    "alora_invocation_tokens", "alpha_pattern", "arrow_config", "auto_mapping", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "kasa_config", "layer_replication", "loftq_config", "lora_bias", "lora_ga_config", "megatron_config",
    "modules_to_save", "monteclora_config", "rank_pattern", "target_parameters", "trainable_token_indices", "use_bdlora",
    "use_dora", "use_qalora", "use_rslora", "velora_config",
}  # fmt: skip
"""Keys that PEFT writes too, and that must be absent, null, false or empty: each would make it more than plain LoRA."""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder. Raises AdapterRefused."""
    plain = _read(folder / MANIFEST_NAME)
    wrong = _first_wrong(plain)
    if wrong is not None:
        raise AdapterRefused(folder=folder, reason=f"{MANIFEST_NAME}: {wrong}")
    return from_plain(Manifest, plain)


def _first_wrong(plain: dict[str, Any]) -> str | None:
    known = {f.name for f in fields(Manifest)}
    if set(plain) | {"kind"} != known:  # adapters made before there was more than one kind do not name theirs
        return f"it must have the keys {', '.join(sorted(known))} and no other"
    labels, files = plain["labels"], plain["files"]
    if not isinstance(plain["task"], str) or not is_task_name(plain["task"]):
        return "task is not a task name"
    if plain["rung"] not in get_args(Rung):
        return f"rung must be one of {', '.join(get_args(Rung))}"
    if plain.get("kind", "classification") not in get_args(Kind):
        return f"kind must be one of {', '.join(get_args(Kind))}"
    if not all(isinstance(plain[name], str) and 0 < len(plain[name]) <= 200 for name in ("base", "base_digest")):
        return "base and base_digest must be short texts"
    if not _texts(labels) or not labels or len(set(labels)) != len(labels):
        return "labels must be distinct texts"
    if type(plain["max_tokens"]) is not int or not 1 <= plain["max_tokens"] <= 8192:
        return "max_tokens must lie in 1 .. 8192"
    wanted = set(WEIGHT_FILES if plain["rung"] == "lora" else WEIGHT_FILES[:1])
    if not isinstance(files, dict) or set(files) != wanted:
        return f"files must name {', '.join(sorted(wanted))} and no other"
    if not all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in files.values()):
        return "files must map to sha256:… digests"
    return None


def read_fingerprint(folder: Path, manifest: Manifest) -> Fingerprint:
    """What the adapter answered when it was made. Raises AdapterRefused."""
    try:
        found = fingerprint_from(_read(folder / FINGERPRINT_NAME))
    except ValueError as error:
        raise AdapterRefused(folder=folder, reason=f"{FINGERPRINT_NAME}: {error}") from error
    known = {label for value in found.labels for label in labels_in(value)} <= set(manifest.labels)
    if len(found.scores[0]) != manifest.output_count or not known:
        raise AdapterRefused(folder=folder, reason=f"{FINGERPRINT_NAME} is not of these labels")
    return found


def check_lora_config(path: Path) -> None:
    """Refuse an `adapter_config.json` that asks for anything but plain LoRA. Raises AdapterRefused."""
    plain = _read(path)
    reason = None
    odd = sorted(set(plain) - FREE_KEYS - EMPTY_KEYS) or sorted(key for key in EMPTY_KEYS if plain.get(key) not in (None, False, {}, []))
    if odd:
        reason = f"{odd[0]!r} is not of plain LoRA"
    elif plain.get("peft_type") != "LORA" or plain.get("bias", "none") != "none":
        reason = "peft_type must be LORA and bias none"
    elif type(plain.get("r")) is not int or not 1 <= plain["r"] <= MAX_RANK:
        reason = f"r must lie in 1 .. {MAX_RANK}"
    elif not isinstance(plain.get("lora_alpha"), int | float) or not 0 < plain["lora_alpha"] <= 1e4:
        reason = "lora_alpha must lie in 0 .. 10000"
    elif not _texts(plain.get("target_modules")) or plain.get("megatron_core", "megatron.core") != "megatron.core":
        reason = "target_modules must be a list of names, megatron_core the default"
    if reason is not None:
        raise AdapterRefused(folder=path.parent, reason=f"{path.name}: {reason}")


def _texts(value: object) -> bool:
    return isinstance(value, list) and len(value) <= 10_000 and all(isinstance(item, str) for item in value)


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"it is larger than {MAX_JSON_BYTES} bytes")
        plain = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefused(folder=path.parent, reason=f"{path.name} cannot be read ({error})") from error
    if not isinstance(plain, dict):
        raise AdapterRefused(folder=path.parent, reason=f"{path.name} is not a mapping")
    return plain
