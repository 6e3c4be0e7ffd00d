"""Snapshot store and adapter store in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.domain.adapters import Fingerprint, Manifest, adapter_digest
from holdfast.domain.datasets import SnapshotRow, rows_digest
from holdfast.domain.ids import AdapterDigest, SnapshotDigest
from holdfast.domain.windows import ReferenceWindow
from holdfast.errors import AdapterRefused, DataInvalid, NotFound


class MemorySnapshotStore:
    """Twin of ``ParquetSnapshotStore``; its paths name no file."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[SnapshotRow, ...]] = {}

    def save(self, digest: SnapshotDigest, rows: Sequence[SnapshotRow]) -> None:
        """See the port."""
        _check(digest, rows)
        self.rows.setdefault(digest, tuple(rows))

    def load(self, digest: SnapshotDigest) -> tuple[SnapshotRow, ...]:
        """See the port."""
        if digest not in self.rows:
            raise NotFound(kind="dataset snapshot", name=digest)
        _check(digest, self.rows[digest])
        return self.rows[digest]

    def path(self, digest: SnapshotDigest) -> Path:
        """See the port."""
        return Path("/nowhere/snapshots") / f"{digest.removeprefix('sha256:')}.parquet"


def _check(digest: str, rows: Sequence[SnapshotRow]) -> None:
    if rows_digest(rows) != digest:
        raise DataInvalid(source=digest, problem="the rows have another digest", place="snapshot", remedy="Freeze the data again.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlantedAdapter:
    """What an adapter folder would hold."""

    manifest: Manifest
    fingerprint: Fingerprint
    reference: ReferenceWindow


class MemoryAdapterStore:
    """Twin of ``FolderAdapterStore``. A test plants adapters under a folder name; ``add`` then finds them there."""

    def __init__(self) -> None:
        self.planted: dict[Path, PlantedAdapter] = {}
        self.stored: dict[str, PlantedAdapter] = {}
        self.damaged: set[str] = set()
        """Digests whose bytes count as changed: ``folder`` refuses them."""

    def plant(self, folder: Path, adapter: PlantedAdapter) -> AdapterDigest:
        """Pretend that ``folder`` is a finished adapter folder; its digest."""
        self.planted[folder] = adapter
        return adapter_digest(adapter.manifest)

    def add(self, folder: Path) -> Manifest:
        """See the port."""
        adapter = self.planted.get(folder)
        if adapter is None:
            raise AdapterRefused(folder=folder, reason="manifest.json is missing")
        self.stored.setdefault(adapter_digest(adapter.manifest), adapter)
        return adapter.manifest

    def folder(self, digest: AdapterDigest) -> Path:
        """See the port."""
        self._get(digest)
        return Path("/nowhere/adapters") / digest.removeprefix("sha256:")

    def manifest(self, digest: AdapterDigest) -> Manifest:
        """See the port."""
        return self._get(digest).manifest

    def fingerprint(self, digest: AdapterDigest) -> Fingerprint:
        """See the port."""
        return self._get(digest).fingerprint

    def reference(self, digest: AdapterDigest) -> ReferenceWindow:
        """See the port."""
        return self._get(digest).reference

    def _get(self, digest: AdapterDigest) -> PlantedAdapter:
        if digest not in self.stored:
            raise NotFound(kind="adapter", name=digest)
        if digest in self.damaged:
            raise AdapterRefused(folder=digest, reason="its bytes changed")
        return self.stored[digest]
