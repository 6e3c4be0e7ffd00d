"""Adapter versions: immutable LoRA weights with head and lineage, named by the digest of their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from holdfast.domain.ids import AdapterDigest, SnapshotDigest, TaskName
from holdfast.domain.records import digest_of, to_plain
from holdfast.domain.tasks import Kind, Rung

MANIFEST_NAME = "manifest.json"
"""Written last; a folder without it is not an adapter."""
WEIGHT_FILES = ("head.safetensors", "adapter_model.safetensors", "adapter_config.json")
"""The files whose bytes make the digest, together with the manifest's own fields. A head-only adapter has only the first."""
REFERENCE_NAME = "reference.parquet"
"""Beside the weights, not part of the digest: the reference window of the version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What base and adapter answer on a few fixed probe inputs; proves that a loaded version is the one that was judged."""

    probes: tuple[str, ...]
    labels: tuple[str, ...]
    """Predicted answer per probe, in its canonical text."""
    scores: tuple[tuple[float, ...], ...]
    """Logits, [probes][outputs of the head]; of a head on tokens the highest over the tokens of a probe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an adapter folder says of itself. The fingerprint lies beside it in `fingerprint.json`, the reference in `reference.parquet`."""

    task: TaskName
    rung: Rung
    base: str
    base_digest: str
    labels: tuple[str, ...]
    """Order of the head's outputs; of an extraction its fields, of which each has two (see `output_count`)."""
    max_tokens: int
    files: Mapping[str, str]
    """File name to ``sha256:…`` of its bytes."""
    kind: Kind = "classification"

    @property
    def output_count(self) -> int:
        """Outputs of its head."""
        return output_count(self.kind, self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a version comes from; with the code revision it re-derives."""

    base_digest: str
    snapshot_digest: SnapshotDigest
    code_revision: str
    parent_digest: AdapterDigest | None
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterVersion:
    """One registered version of a task's adapter."""

    digest: AdapterDigest
    task: TaskName
    number: int
    """Counts from 1 within the task, in the order of registration."""
    rung: Rung
    labels: tuple[str, ...]
    base: str
    max_tokens: int
    lineage: Lineage
    created_at: datetime
    train_seconds: float
    byte_count: int
    run_id: str | None = None
    """MLflow run, once recorded."""
    registry_version: str | None = None
    """MLflow model version, once registered."""


def output_count(kind: Kind, labels: Sequence[str]) -> int:
    """Outputs of a head: one per label; of an extraction `outside`, then a begin for each field, then an inside for each."""
    return 2 * len(labels) + 1 if kind == "extraction" else len(labels)


def adapter_digest(manifest: Manifest) -> AdapterDigest:
    """The name of an adapter: the digest of its manifest, which holds the digests of its files.

    The kind counts only where it is not `classification`: adapters made before there was another kind keep their names.
    """
    plain = to_plain(manifest)
    assert isinstance(plain, dict), "a record is a mapping"
    return AdapterDigest(digest_of({name: value for name, value in plain.items() if (name, value) != ("kind", "classification")}))
