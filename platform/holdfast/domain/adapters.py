"""Adapter versions: immutable LoRA weights with head and lineage, named by the digest of their content."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime

from holdfast.domain.ids import AdapterDigest, AlertId, SnapshotDigest, TaskName
from holdfast.domain.records import digest_of, from_plain, to_plain
from holdfast.domain.tasks import Kind, Rung

MANIFEST_NAME = "manifest.json"
"""Written last; a folder without it is not an adapter."""
WEIGHT_FILES = ("head.safetensors", "adapter_model.safetensors", "adapter_config.json")
"""The files whose bytes make the digest, together with the manifest's own fields. A head-only adapter has only the first."""
REFERENCE_NAME = "reference.parquet"
"""Beside the weights, not part of the digest: the reference window of the version."""


FINGERPRINT_FORMAT = 2
"""Grows when a fingerprint holds something else; an older one is refused, since it proves less."""
Vectors = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What tokenizer, base and adapter make of a few fixed probe inputs; proves that a loaded version is the one that was judged.

    The parts are sealed apart, so that a wrong tokenizer, a wrong base, a wrong LoRA and a wrong head are told from one another.
    """

    format: int = FINGERPRINT_FORMAT
    probes: tuple[str, ...]
    """The last one is longer than the adapter reads, so that another truncation length shows."""
    token_counts: tuple[int, ...]
    """Tokens per probe, the special ones included, after truncation."""
    token_digest: str
    """``sha256:…`` of the token ids of all probes."""
    base: Vectors
    """Pooled vectors of the bare base, projected: [probes][values]."""
    pooled: Vectors
    """The same of the base with the adapter on it; equal to ``base`` for an adapter that is a head alone."""
    labels: tuple[str, ...]
    """Predicted answer per probe, in its canonical text."""
    scores: Vectors
    """Logits, [probes][outputs of the head]; of a head on tokens the highest over the tokens of a probe."""


def fingerprint_from(plain: object) -> Fingerprint:
    """The fingerprint that a JSON value is. Raises ValueError with what is wrong with it."""
    known = {f.name for f in fields(Fingerprint)}
    form = plain.get("format", 1) if isinstance(plain, Mapping) else "of no mapping"
    if not isinstance(plain, Mapping) or form != FINGERPRINT_FORMAT:
        raise ValueError(f"it has the format {form!r}, not {FINGERPRINT_FORMAT}: train the version again")
    if set(plain) != known:
        raise ValueError(f"it must have the keys {', '.join(sorted(known))} and no other")
    try:
        found = from_plain(Fingerprint, plain)
        rows = (*found.base, *found.pooled, *found.scores)
        finite = all(math.isfinite(value) for row in rows for value in row)
        texts = all(isinstance(one, str) for one in (*found.probes, *found.labels, found.token_digest))
        counts = all(type(one) is int and one > 0 for one in found.token_counts)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError("it cannot be read") from error
    sizes = {len(part) for part in (found.probes, found.token_counts, found.base, found.pooled, found.labels, found.scores)}
    widths = [{len(row) for row in part} for part in (found.base, found.pooled, found.scores)]
    if len(sizes) != 1 or sizes == {0} or any(len(width) != 1 or width == {0} for width in widths):
        raise ValueError("it is empty or uneven")
    if not (finite and texts and counts):
        raise ValueError("it holds something that is no text, no count or no finite number")
    return found


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
    forced_over: AlertId | None = None
    """The alert on broken inputs that held its training, where a person started it all the same."""


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
