"""Real adapter folders, written without any model library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.domain.adapters import MANIFEST_NAME, REFERENCE_NAME, Manifest, adapter_digest
from holdfast.domain.records import to_plain
from holdfast.domain.windows import ReferenceWindow, WindowRows
from holdfast.testing.builders import an_adapter
from holdfast.testing.memory_stores import PlantedAdapter

PLAIN_LORA: dict[str, Any] = {
    "peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["query", "value"], "bias": "none", "modules_to_save": None,
    "base_model_name_or_path": "ignored", "inference_mode": True, "auto_mapping": None, "rank_pattern": {},
}  # fmt: skip


def write_adapter(folder: Path, name: str = "first", *, seed: int = 0, **fields: Any) -> PlantedAdapter:
    """Write a finished adapter folder and return what is in it. ``fields`` are of the manifest; the weights come from ``name``."""
    folder.mkdir(parents=True)
    adapter = an_adapter(name, seed=seed, **fields)
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))
    head = {"weight": random.standard_normal((3, 8)).astype("<f4"), "bias": np.zeros(3, "<f4")}
    (folder / "head.safetensors").write_bytes(safetensors_bytes(head))
    names = ["head.safetensors"]
    if adapter.manifest.rung == "lora":
        (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes({"lora_A": random.standard_normal((8, 4)).astype("<f2")}))
        (folder / "adapter_config.json").write_text(json.dumps(PLAIN_LORA))
        names += ["adapter_model.safetensors", "adapter_config.json"]
    (folder / "fingerprint.json").write_text(json.dumps(to_plain(adapter.fingerprint)))
    return write_manifest(folder, adapter, names)


def write_manifest(folder: Path, adapter: PlantedAdapter, names: list[str]) -> PlantedAdapter:
    """(Re)write reference and manifest so that they fit the bytes of the named files."""
    files = {name: "sha256:" + hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    manifest: Manifest = replace(adapter.manifest, files=files)
    reference = replace(adapter.reference, adapter_digest=adapter_digest(manifest))
    write_reference(folder / REFERENCE_NAME, reference)
    (folder / MANIFEST_NAME).write_text(json.dumps(to_plain(manifest)))
    return replace(adapter, manifest=manifest, reference=reference)


def write_reference(path: Path, reference: ReferenceWindow) -> None:
    """Write a reference window in the columns that an adapter folder has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = [_table(part, rows) for part, rows in (("fitted", reference.fitted), ("calibration", reference.calibration))]
    pq.write_table(pa.concat_tables(parts), path)


def _table(part: str, rows: WindowRows) -> Any:
    import pyarrow as pa

    return pa.table({
        "part": pa.array([part] * len(rows), pa.string()),
        "text": pa.array(rows.texts, pa.string()),
        "label": pa.array(rows.labels, pa.string()),
        "prediction": pa.array(rows.predictions, pa.string()),
        "confidence": pa.array(rows.confidences, pa.float32()),
        "embedding": pa.array(list(rows.embeddings), pa.list_(pa.float32())),
    })  # fmt: skip


def safetensors_bytes(tensors: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """The bytes of a safetensors file of float32 or float16 arrays."""
    header, data = {}, b""
    for name, values in tensors.items():
        raw = values.tobytes()
        dtype = {"<f4": "F32", "<f2": "F16"}[values.dtype.str]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return with_header(header, data)


def with_header(header: object, data: bytes) -> bytes:
    """A safetensors file of this header, however wrong, and these data."""
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data
