"""Rows of dataset snapshots as Parquet files, one per digest."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from holdfast.domain.datasets import SnapshotRow, rows_digest
from holdfast.domain.ids import SnapshotDigest
from holdfast.errors import DataInvalid, NotFound, StorageRefused

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COLUMNS = tuple(f.name for f in fields(SnapshotRow))


class ParquetSnapshotStore:
    """See ``ports.SnapshotStore``. A file appears whole, under its name, or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, digest: SnapshotDigest, rows: Sequence[SnapshotRow]) -> None:
        """See the port. Raises DataInvalid when the rows do not have that digest."""
        target = self.path(digest)
        if target.exists():
            return
        _check(digest, rows)
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _write(beside, rows)
            beside.replace(target)
            _flush(self._folder)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            raise StorageRefused(place=target, reason=error.strerror or error) from error

    def load(self, digest: SnapshotDigest) -> tuple[SnapshotRow, ...]:
        """See the port."""
        target = self.path(digest)
        if not target.is_file():
            raise NotFound(kind="dataset snapshot", name=digest)
        rows = _read(target, digest)
        _check(digest, rows)
        return rows

    def path(self, digest: SnapshotDigest) -> Path:
        """See the port. Raises NotFound on what is no digest, so that no text from outside becomes a path."""
        if _DIGEST.fullmatch(digest) is None:
            raise NotFound(kind="dataset snapshot", name=digest)
        return self._folder / f"{digest.removeprefix('sha256:')}.parquet"


def _write(path: Path, rows: Sequence[SnapshotRow]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {name: pa.int64() if name == "row_id" else pa.string() for name in _COLUMNS}
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=pa.schema(list(kinds.items())))
    with path.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path, digest: str) -> tuple[SnapshotRow, ...]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        plain: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return tuple(SnapshotRow(**row) for row in plain)
    except (pa.ArrowException, OSError, TypeError) as error:
        raise _invalid(digest, f"its file cannot be read ({error})") from error


def _check(digest: str, rows: Sequence[SnapshotRow]) -> None:
    if rows_digest(rows) != digest:
        raise _invalid(digest, "the rows have another digest")


def _invalid(digest: str, problem: str) -> DataInvalid:
    return DataInvalid(source=digest, problem=problem, place="snapshot", remedy="Freeze the data again, or restore the file from a backup.")


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
