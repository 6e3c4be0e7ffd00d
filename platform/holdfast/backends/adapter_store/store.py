"""The store: copy in, verify, rename; verify again on the way out."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from holdfast.backends.adapter_store.documents import read_fingerprint, read_manifest
from holdfast.backends.adapter_store.folders import check_digests, check_folder, names_in
from holdfast.backends.adapter_store.reference import read_reference
from holdfast.domain.adapters import Fingerprint, Manifest, adapter_digest
from holdfast.domain.ids import AdapterDigest
from holdfast.domain.windows import ReferenceWindow
from holdfast.errors import AdapterRefused, NotFound, StorageRefused

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MAX_FILE_BYTES = 1 << 30
Signature = tuple[tuple[str, int, int], ...]
"""Name, size and time of change in nanoseconds, of every file."""


class FolderAdapterStore:
    """See ``ports.AdapterStore``. Pure files: no model library is imported, nothing that is stored is executed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._verified: dict[AdapterDigest, tuple[Signature, Manifest]] = {}

    def add(self, folder: Path) -> Manifest:
        """See the port. What is checked is the copy, so nobody can change it between check and use."""
        names = names_in(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            beside = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self._folder))
        except OSError as error:
            raise StorageRefused(place=self._folder, reason=error.strerror or error) from error
        try:
            for name in names:
                _copy(folder / name, beside / name)
            manifest = check_folder(beside, named=folder)
            self._put_in_place(beside, adapter_digest(manifest))
            return manifest
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def folder(self, digest: AdapterDigest) -> Path:
        """See the port. Bytes are digested once per process, and again when size or time of a file changed."""
        path = self._path(digest)
        self._verify(path, digest)
        return path

    def manifest(self, digest: AdapterDigest) -> Manifest:
        """See the port. Raises NotFound, AdapterRefused."""
        return self._verify(self._path(digest), digest)

    def fingerprint(self, digest: AdapterDigest) -> Fingerprint:
        """See the port. Raises NotFound, AdapterRefused."""
        path = self._path(digest)
        return read_fingerprint(path, self._verify(path, digest))

    def reference(self, digest: AdapterDigest) -> ReferenceWindow:
        """See the port. Raises NotFound, AdapterRefused."""
        return read_reference(self.folder(digest), digest)

    def _path(self, digest: AdapterDigest) -> Path:
        path = self._folder / digest.removeprefix("sha256:")
        if _DIGEST.fullmatch(digest) is None or not path.is_dir():
            raise NotFound(kind="adapter", name=digest)
        return path

    def _verify(self, path: Path, digest: AdapterDigest) -> Manifest:
        signature = _signature(path)
        known = self._verified.get(digest)
        if known is not None and known[0] == signature:
            return known[1]
        names_in(path)
        manifest = read_manifest(path)
        check_digests(path, manifest)
        if adapter_digest(manifest) != digest:
            raise AdapterRefused(folder=path, reason="its manifest was changed: it has another digest than its name says")
        self._verified[digest] = (signature, manifest)
        return manifest

    def _put_in_place(self, beside: Path, digest: AdapterDigest) -> None:
        """Rename to the digest, unless a sound folder of that name is there; a damaged one is replaced."""
        target = self._folder / digest.removeprefix("sha256:")
        try:
            if target.exists():
                try:
                    self._verify(target, digest)
                    return
                except AdapterRefused:
                    shutil.rmtree(target)
            beside.chmod(0o755)
            _flush(beside)
            beside.rename(target)
            _flush(self._folder)
        except OSError as error:
            if target.is_dir():  # another process was quicker with the same adapter
                self._verify(target, digest)
                return
            raise StorageRefused(place=target, reason=error.strerror or error) from error


def _signature(path: Path) -> Signature:
    try:
        with os.scandir(path) as listing:
            stats = [(entry.name, entry.stat(follow_symlinks=False)) for entry in listing]
    except OSError as error:
        raise AdapterRefused(folder=path, reason=f"it cannot be read ({error.strerror})") from error
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


def _copy(source: Path, target: Path) -> None:
    """Copy one regular file, flushed to disk. A link put there in the meantime is not followed."""
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise AdapterRefused(folder=source.parent, reason=f"{source.name} cannot be read ({error.strerror})") from error
    with os.fdopen(handle, "rb") as file:
        if os.fstat(handle).st_size > MAX_FILE_BYTES:
            raise AdapterRefused(folder=source.parent, reason=f"{source.name} is larger than {MAX_FILE_BYTES} bytes")
        try:
            with target.open("xb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
                copy.flush()
                os.fsync(copy.fileno())
        except OSError as error:
            raise StorageRefused(place=target.parent.parent, reason=error.strerror or error) from error


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
