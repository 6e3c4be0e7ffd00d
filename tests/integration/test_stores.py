"""What the stores on disk refuse, and that a refusal leaves nothing behind."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.backends.adapter_store import FolderAdapterStore
from holdfast.backends.snapshot_store import ParquetSnapshotStore
from holdfast.domain.adapters import adapter_digest
from holdfast.domain.ids import AdapterDigest, SnapshotDigest
from holdfast.errors import AdapterRefused, DataInvalid, NotFound, StorageRefused
from holdfast.testing.adapter_folders import PLAIN_LORA, safetensors_bytes, with_header, write_adapter, write_manifest, write_reference
from holdfast.testing.builders import a_reference_window, a_snapshot, a_snapshot_row, a_window
from holdfast.testing.memory_stores import PlantedAdapter

LORA_FILES = ["head.safetensors", "adapter_model.safetensors", "adapter_config.json"]
F32 = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}


@pytest.fixture
def store(tmp_path: Path) -> FolderAdapterStore:
    return FolderAdapterStore(tmp_path / "adapters")


def refused(store: FolderAdapterStore, folder: Path, match: str) -> None:
    """The folder is refused by its own name, and nothing of it stays in the store."""
    with pytest.raises(AdapterRefused, match=match) as caught:
        store.add(folder)
    assert caught.value.fields["folder"] == folder
    stored = folder.parent / "adapters"
    assert not stored.exists() or list(stored.iterdir()) == []


def a_lora(folder: Path) -> PlantedAdapter:
    return write_adapter(folder, rung="lora")


DOUBLED = b'{"w":' + json.dumps(F32).encode() + b',"w":' + json.dumps(F32).encode() + b"}"
TWICE = len(DOUBLED).to_bytes(8, "little") + DOUBLED + b"\0" * 4
HOSTILE: dict[str, bytes] = {
    "no header": b"",
    "half a length": b"\x04\x00",
    "a huge header": (1 << 62).to_bytes(8, "little") + b"{}",
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix.",
    "not JSON": (4).to_bytes(8, "little") + b"{{{{",
    "a list": with_header([], b""),
    "no tensor": with_header({}, b""),
    "another dtype": with_header({"w": F32 | {"dtype": "I64", "data_offsets": [0, 8]}}, b"\0" * 8),
    "an unknown key": with_header({"w": F32 | {"more": 1}}, b"\0" * 4),
    "a negative shape": with_header({"w": F32 | {"shape": [-1, -1]}}, b"\0" * 4),
    "a shape that is no number": with_header({"w": F32 | {"shape": [True, 1]}}, b"\0" * 4),
    "a size that is not the shape's": with_header({"w": F32 | {"shape": [2, 1]}}, b"\0" * 4),
    "an empty tensor": with_header({"w": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}, b""),
    "overlapping tensors": with_header({"a": F32, "b": F32}, b"\0" * 4),
    "a gap": with_header({"a": F32, "b": F32 | {"data_offsets": [8, 12]}}, b"\0" * 12),
    "offsets outside": with_header({"w": F32 | {"data_offsets": [4, 8]}}, b"\0" * 4),
    "truncated data": with_header({"w": F32}, b"\0" * 3),
    "data too long": with_header({"w": F32}, b"\0" * 5),
    "NaN": safetensors_bytes({"w": np.array([np.nan], "<f4")}),
    "infinity in float16": safetensors_bytes({"w": np.array([np.inf], "<f2")}),
    "infinity in bfloat16": with_header({"w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}}, b"\x80\x7f"),
    "notes that are no texts": with_header({"__metadata__": {"a": 1}, "w": F32}, b"\0" * 4),
    "a name twice": TWICE,
    "too many tensors": with_header({f"w{n}": F32 | {"data_offsets": [4 * n, 4 * n + 4]} for n in range(4097)}, b"\0" * 4 * 4097),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_weights_that_are_not_whole_and_finite_are_refused(store: FolderAdapterStore, tmp_path: Path, name: str) -> None:
    adapter = write_adapter(tmp_path / "in")
    (tmp_path / "in" / "head.safetensors").write_bytes(HOSTILE[name])
    write_manifest(tmp_path / "in", adapter, ["head.safetensors"])
    refused(store, tmp_path / "in", r"head\.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"auto_mapping": {"base_model_class": "os.system"}}, {"modules_to_save": ["embeddings"]}, {"use_dora": True}, {"r": 257}, {"r": 0},
        {"r": True}, {"peft_type": "IA3"}, {"bias": "all"}, {"trust_remote_code": True}, {"auto_map": {"AutoModel": "x.py"}},
        {"lora_alpha": -1}, {"target_modules": "all-linear"}, {"megatron_core": "evil.module"}, {"rank_pattern": {"a": 512}},
    ],
)  # fmt: skip
def test_a_config_of_more_than_plain_lora_is_refused(store: FolderAdapterStore, tmp_path: Path, change: dict[str, Any]) -> None:
    adapter = a_lora(tmp_path / "in")
    (tmp_path / "in" / "adapter_config.json").write_text(json.dumps(PLAIN_LORA | change))
    write_manifest(tmp_path / "in", adapter, LORA_FILES)
    refused(store, tmp_path / "in", r"adapter_config\.json")


def test_the_base_that_a_config_names_is_ignored(store: FolderAdapterStore, tmp_path: Path) -> None:
    adapter = a_lora(tmp_path / "in")
    (tmp_path / "in" / "adapter_config.json").write_text(json.dumps(PLAIN_LORA | {"base_model_name_or_path": "someone/else"}))
    made = write_manifest(tmp_path / "in", adapter, LORA_FILES)
    assert store.add(tmp_path / "in") == made.manifest


@pytest.mark.parametrize("name", ["adapter_model.bin", "model.pkl", ".hidden", "tokenizer.json", "notes.txt"])
def test_a_file_that_is_not_of_an_adapter_is_refused(store: FolderAdapterStore, tmp_path: Path, name: str) -> None:
    write_adapter(tmp_path / "in")
    (tmp_path / "in" / name).write_bytes(b"x")
    refused(store, tmp_path / "in", "is not a file of an adapter")


def _link(folder: Path) -> None:
    (folder / "head.safetensors").rename(folder.parent / "elsewhere")
    (folder / "head.safetensors").symlink_to(folder.parent / "elsewhere")


def _subfolder(folder: Path) -> None:
    (folder / "fingerprint.json").unlink()
    (folder / "fingerprint.json").mkdir()


def _pipe(folder: Path) -> None:
    (folder / "fingerprint.json").unlink()
    os.mkfifo(folder / "fingerprint.json")


@pytest.mark.parametrize("spoil", [_link, _subfolder, _pipe])
def test_links_folders_and_pipes_are_refused(store: FolderAdapterStore, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    write_adapter(tmp_path / "in")
    spoil(tmp_path / "in")
    refused(store, tmp_path / "in", "is a link or not a regular file")


def test_a_linked_folder_is_refused(store: FolderAdapterStore, tmp_path: Path) -> None:
    write_adapter(tmp_path / "in")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    refused(store, tmp_path / "link", "not a folder")


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1}, {"task": "../../etc"}, {"rung": "full"}, {"labels": []}, {"labels": ["a", "a"]}, {"labels": "abc"}, {"max_tokens": 0},
        {"max_tokens": 1.5}, {"base": ""}, {"files": {"head.safetensors": "sha256:0"}}, {"files": {"../x": "sha256:" + "0" * 64}},
        {"files": []}, {"files": {"head.safetensors": "sha256:" + "0" * 64}},
    ],
)  # fmt: skip
def test_a_manifest_outside_its_schema_is_refused(store: FolderAdapterStore, tmp_path: Path, change: dict[str, Any]) -> None:
    write_adapter(tmp_path / "in")
    path = tmp_path / "in" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(store, tmp_path / "in", r"manifest")


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000])
@pytest.mark.parametrize("name", ["manifest.json", "fingerprint.json"])
def test_a_document_that_is_no_mapping_is_refused(store: FolderAdapterStore, tmp_path: Path, name: str, text: str) -> None:
    write_adapter(tmp_path / "in")
    (tmp_path / "in" / name).write_text(text)
    refused(store, tmp_path / "in", name)


@pytest.mark.parametrize(
    "change", [{"scores": [[0, 1, "x"], [1, 2, 3]]}, {"probes": []}, {"labels": ["weather", "x"]}, {"scores": [[1], [2]]}, {"more": 1}]
)
def test_a_fingerprint_that_proves_nothing_is_refused(store: FolderAdapterStore, tmp_path: Path, change: dict[str, Any]) -> None:
    write_adapter(tmp_path / "in")
    path = tmp_path / "in" / "fingerprint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(store, tmp_path / "in", r"fingerprint\.json")


def test_a_reference_that_is_empty_or_not_finite_is_refused(store: FolderAdapterStore, tmp_path: Path) -> None:
    write_adapter(tmp_path / "in")
    path = tmp_path / "in" / "reference.parquet"
    path.write_bytes(b"PAR1 no")
    refused(store, tmp_path / "in", r"reference\.parquet")
    whole = a_reference_window()
    whole.fitted.embeddings[0, 0] = np.nan
    write_reference(path, whole)
    refused(store, tmp_path / "in", r"reference\.parquet")
    object.__setattr__(whole, "fitted", a_window(0))
    write_reference(path, whole)
    refused(store, tmp_path / "in", r"reference\.parquet")


@pytest.mark.parametrize("name", ["head.safetensors", "fingerprint.json", "reference.parquet", "adapter_config.json"])
def test_an_adapter_that_lacks_a_file_is_refused(store: FolderAdapterStore, tmp_path: Path, name: str) -> None:
    a_lora(tmp_path / "in")
    (tmp_path / "in" / name).unlink()
    refused(store, tmp_path / "in", name)


def test_bytes_that_change_in_the_store_are_noticed_and_adding_again_mends(store: FolderAdapterStore, tmp_path: Path) -> None:
    digest = adapter_digest(write_adapter(tmp_path / "in").manifest)
    store.add(tmp_path / "in")
    head = store.folder(digest) / "head.safetensors"
    raw = bytearray(head.read_bytes())
    raw[-1] ^= 1
    head.write_bytes(raw)
    for look in (store.folder, store.fingerprint, store.reference):
        with pytest.raises(AdapterRefused, match="has not the digest"):
            look(digest)
    store.add(tmp_path / "in")
    assert store.folder(digest)


def test_a_manifest_that_changes_in_the_store_is_noticed(store: FolderAdapterStore, tmp_path: Path) -> None:
    digest = adapter_digest(write_adapter(tmp_path / "in").manifest)
    store.add(tmp_path / "in")
    path = store.folder(digest) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_tokens": 64}))
    with pytest.raises(AdapterRefused, match="manifest was changed"):
        store.manifest(digest)


@pytest.mark.parametrize("text", ["sha256:../../etc", "..", "", "sha256:" + "G" * 64])
def test_a_text_that_is_no_digest_never_becomes_a_path(store: FolderAdapterStore, tmp_path: Path, text: str) -> None:
    with pytest.raises(NotFound):
        store.folder(AdapterDigest(text))
    with pytest.raises(NotFound):
        ParquetSnapshotStore(tmp_path).load(SnapshotDigest(text))


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    write_adapter(tmp_path / "in")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageRefused, match=r"Not a directory|File exists"):
        FolderAdapterStore(tmp_path / "file").add(tmp_path / "in")
    rows = (a_snapshot_row(1),)
    with pytest.raises(StorageRefused):
        ParquetSnapshotStore(tmp_path / "file" / "sub").save(a_snapshot(rows).digest, rows)


def test_a_snapshot_file_whose_rows_changed_is_refused(tmp_path: Path) -> None:
    store = ParquetSnapshotStore(tmp_path)
    rows, others = (a_snapshot_row(1),), (a_snapshot_row(2),)
    store.save(a_snapshot(rows).digest, rows)
    store.save(a_snapshot(others).digest, others)
    store.path(a_snapshot(others).digest).replace(store.path(a_snapshot(rows).digest))
    with pytest.raises(DataInvalid, match="another digest"):
        store.load(a_snapshot(rows).digest)
    store.path(a_snapshot(rows).digest).write_bytes(b"no parquet")
    with pytest.raises(DataInvalid, match="cannot be read"):
        store.load(a_snapshot(rows).digest)
