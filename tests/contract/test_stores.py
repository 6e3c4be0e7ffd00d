"""Snapshot stores and adapter stores give back what was put in, or refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from holdfast.backends.adapter_store import FolderAdapterStore
from holdfast.backends.snapshot_store import ParquetSnapshotStore
from holdfast.domain.adapters import adapter_digest
from holdfast.domain.ids import SnapshotDigest
from holdfast.errors import AdapterRefused, DataInvalid, NotFound
from holdfast.ports import AdapterStore, SnapshotStore
from holdfast.testing.adapter_folders import write_adapter
from holdfast.testing.builders import a_digest, a_snapshot, a_snapshot_row, an_adapter
from holdfast.testing.memory import MemoryAdapterStore, MemorySnapshotStore
from holdfast.testing.memory_stores import PlantedAdapter

Bring = Callable[[Path, str], PlantedAdapter]


@pytest.fixture(params=["memory", "parquet"])
def snapshots(request: pytest.FixtureRequest, tmp_path: Path) -> SnapshotStore:
    return MemorySnapshotStore() if request.param == "memory" else ParquetSnapshotStore(tmp_path / "snapshots")


@pytest.fixture(params=["memory", "folder"])
def adapters(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[AdapterStore, Bring]:
    """A store, and how a finished adapter folder comes about for it."""
    if request.param == "folder":
        return FolderAdapterStore(tmp_path / "adapters"), write_adapter
    store = MemoryAdapterStore()

    def plant(folder: Path, name: str) -> PlantedAdapter:
        adapter = an_adapter(name)
        store.plant(folder, adapter)
        return adapter

    return store, plant


def test_rows_come_back_as_they_were(snapshots: SnapshotStore) -> None:
    rows = tuple(a_snapshot_row(n, text=f"zeile {n} \n ü 📦", capture_id=None if n % 2 else f"c-{n}") for n in range(50))
    digest = a_snapshot(rows).digest
    snapshots.save(digest, rows)
    snapshots.save(digest, rows)
    assert snapshots.load(digest) == rows
    assert snapshots.path(digest).name == f"{digest.removeprefix('sha256:')}.parquet"


def test_rows_under_a_wrong_digest_are_refused(snapshots: SnapshotStore) -> None:
    rows = (a_snapshot_row(1),)
    with pytest.raises(DataInvalid, match="another digest"):
        snapshots.save(a_snapshot((a_snapshot_row(2),)).digest, rows)
    with pytest.raises(NotFound):
        snapshots.load(a_snapshot((a_snapshot_row(2),)).digest)


def test_an_unknown_snapshot_is_not_found(snapshots: SnapshotStore) -> None:
    with pytest.raises(NotFound):
        snapshots.load(SnapshotDigest("sha256:" + "0" * 64))


def test_an_adapter_comes_back_as_it_was(adapters: tuple[AdapterStore, Bring], tmp_path: Path) -> None:
    store, bring = adapters
    made = bring(tmp_path / "work", "first")
    digest = adapter_digest(made.manifest)
    assert store.add(tmp_path / "work") == made.manifest == store.add(tmp_path / "work")
    assert store.manifest(digest) == made.manifest
    assert store.fingerprint(digest) == made.fingerprint
    assert store.folder(digest).name == digest.removeprefix("sha256:")
    got = store.reference(digest)
    assert got.adapter_digest == digest
    for mine, theirs in ((got.fitted, made.reference.fitted), (got.calibration, made.reference.calibration)):
        assert (mine.texts, mine.predictions, mine.labels) == (theirs.texts, theirs.predictions, theirs.labels)
        assert np.array_equal(mine.embeddings, theirs.embeddings)
        assert np.array_equal(mine.confidences, theirs.confidences)


def test_an_unknown_adapter_is_not_found(adapters: tuple[AdapterStore, Bring]) -> None:
    store, _ = adapters
    for look in (store.folder, store.manifest, store.fingerprint, store.reference):
        with pytest.raises(NotFound):
            look(a_digest("nobody"))


def test_a_folder_that_is_no_adapter_is_refused(adapters: tuple[AdapterStore, Bring], tmp_path: Path) -> None:
    store, _ = adapters
    (tmp_path / "empty").mkdir()
    with pytest.raises(AdapterRefused, match=r"manifest\.json is missing"):
        store.add(tmp_path / "empty")
