"""Files of a training and of an adapter: written whole or not at all, never pickled, refused when anything is off."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from holdfast.domain.adapters import MANIFEST_NAME, WEIGHT_FILES, Fingerprint, Manifest, adapter_digest, fingerprint_from
from holdfast.domain.ids import AdapterDigest
from holdfast.domain.records import from_plain, to_plain
from holdfast.errors import AdapterRefused, StorageRefused

HEAD_NAME, LORA_NAME, LORA_CONFIG_NAME = WEIGHT_FILES
FINGERPRINT_NAME = "fingerprint.json"
MAX_WEIGHT_BYTES = 1 << 30


def write_json(path: Path, record: object) -> None:
    """Replace ``path`` by the JSON form of a record, atomically and durably. Raises StorageRefused."""
    write_bytes(path, json.dumps(to_plain(record), sort_keys=True, ensure_ascii=False).encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path``, atomically and durably. Raises StorageRefused."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageRefused(place=path, reason=error.strerror or error) from error


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make ``folder`` whole: filled under another name, flushed to disk, then renamed over what was there. Raises StorageRefused."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        fill(beside)
        for file in beside.iterdir():
            _flush(file)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
        _flush(folder.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise StorageRefused(place=folder, reason=getattr(error, "strerror", None) or error) from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write safetensors, in float32 and in order of name, so that equal tensors are equal bytes."""
    save_file({name: tensors[name].detach().float().contiguous().clone() for name in sorted(tensors)}, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, through mmap; every value finite. Raises AdapterRefused."""
    try:
        if path.is_symlink() or path.stat().st_size > MAX_WEIGHT_BYTES:
            raise AdapterRefused(folder=path.parent, reason=f"{path.name} is a link or larger than {MAX_WEIGHT_BYTES} bytes")
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise AdapterRefused(folder=path.parent, reason=f"{path.name} is not a whole safetensors file ({error})") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise AdapterRefused(folder=path.parent, reason=f"{path.name}: {name} holds values that are not finite numbers")
    return {name: tensor.float() for name, tensor in tensors.items()}


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder whose weight files have the digests it names. Raises AdapterRefused."""
    try:
        manifest = from_plain(Manifest, json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8")))
        files = dict(manifest.files)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise AdapterRefused(folder=folder, reason=f"{MANIFEST_NAME} cannot be read ({error})") from error
    wanted = set(WEIGHT_FILES[:1]) if manifest.rung == "head" else set(WEIGHT_FILES)
    if set(files) != wanted:
        raise AdapterRefused(folder=folder, reason=f"a {manifest.rung} adapter has the files {sorted(wanted)}, not {sorted(files)}")
    for name, digest in files.items():
        if file_digest(folder / name) != digest:
            raise AdapterRefused(folder=folder, reason=f"{name} is absent, truncated or changed: it has not the digest in the manifest")
    return manifest


def read_fingerprint(folder: Path) -> Fingerprint:
    """What the adapter answered when it was made. Raises AdapterRefused."""
    try:
        return fingerprint_from(json.loads((folder / FINGERPRINT_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefused(folder=folder, reason=f"{FINGERPRINT_NAME} cannot be read ({error})") from error


def finish_adapter(folder: Path, manifest: Manifest) -> AdapterDigest:
    """Write the manifest of a folder whose other files are complete; this makes it an adapter. Returns its digest."""
    write_json(folder / MANIFEST_NAME, manifest)
    return adapter_digest(manifest)


def file_digest(path: Path) -> str:
    """``sha256:`` and the digest of a file's bytes; an empty text when there is no such file."""
    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def byte_count(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def read_json(path: Path) -> Any:
    """The value in a JSON file, None when it is absent or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
