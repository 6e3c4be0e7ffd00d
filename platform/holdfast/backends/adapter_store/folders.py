"""A whole adapter folder: which files may be in it, and that each is what the manifest says."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from holdfast.backends.adapter_store.documents import FINGERPRINT_NAME, check_lora_config, read_fingerprint, read_manifest
from holdfast.backends.adapter_store.reference import read_reference
from holdfast.backends.adapter_store.tensors import check_tensors
from holdfast.domain.adapters import MANIFEST_NAME, REFERENCE_NAME, WEIGHT_FILES, Manifest, adapter_digest
from holdfast.errors import AdapterRefused

BESIDE = (MANIFEST_NAME, FINGERPRINT_NAME, REFERENCE_NAME)
KNOWN = frozenset({*WEIGHT_FILES, *BESIDE})


def names_in(folder: Path) -> tuple[str, ...]:
    """The names of a folder's files.

    Raises:
        AdapterRefused: there is no such folder, a file is not of an adapter (a pickle, say), is a link, or is no regular file.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise AdapterRefused(folder=folder, reason="it is not a folder")
    with os.scandir(folder) as listing:
        entries = list(listing)
    names = []
    for entry in entries:
        if entry.name not in KNOWN:
            raise AdapterRefused(folder=folder, reason=f"{entry.name!r} is not a file of an adapter ({', '.join(sorted(KNOWN))})")
        if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
            raise AdapterRefused(folder=folder, reason=f"{entry.name} is a link or not a regular file")
        names.append(entry.name)
    if MANIFEST_NAME not in names:
        raise AdapterRefused(folder=folder, reason=f"{MANIFEST_NAME} is missing, so it was never finished")
    return tuple(sorted(names))


def check_folder(folder: Path, *, named: Path) -> Manifest:
    """The manifest of a folder in which everything is as it should be.

    Args:
        folder: what is checked.
        named: what an error names.

    Raises:
        AdapterRefused: with the first thing that is off.
    """
    try:
        manifest = read_manifest(folder)
        present = set(names_in(folder))
        if present != set(manifest.files) | set(BESIDE):
            odd = ", ".join(sorted(present ^ (set(manifest.files) | set(BESIDE))))
            raise AdapterRefused(folder=folder, reason=f"its files are not those that its manifest names: {odd}")
        check_digests(folder, manifest)
        for name in sorted(manifest.files):
            if name.endswith(".safetensors"):
                check_tensors(folder / name)
            else:
                check_lora_config(folder / name)
        read_fingerprint(folder, manifest)
        read_reference(folder, adapter_digest(manifest))
        return manifest
    except AdapterRefused as error:
        raise AdapterRefused(folder=named, reason=error.fields["reason"]) from error


def check_digests(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder whose weight files do not have the digests in the manifest. Raises AdapterRefused."""
    for name, digest in manifest.files.items():
        if _digest(folder / name) != digest:
            raise AdapterRefused(folder=folder, reason=f"{name} is absent, truncated or changed: it has not the digest in the manifest")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
