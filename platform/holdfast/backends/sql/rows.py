"""Records to rows and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np

from holdfast.domain.captures import Capture, Label, Prediction, check_storable
from holdfast.domain.ids import AdapterDigest, CaptureId, TaskName
from holdfast.domain.ledger import LedgerEntry
from holdfast.domain.producers import Producer
from holdfast.domain.records import canonical, from_plain

Record = TypeVar("Record")


def instant(at: datetime) -> str:
    """UTC with microseconds, always 32 characters: text order is time order."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def body_of(record: object) -> str:
    """Canonical JSON of a record. Raises ValueError on NaN and infinities."""
    return canonical(record).decode()


def record_of(kind: type[Record], body: str) -> Record:
    """The record whose ``body_of`` this is."""
    return from_plain(kind, json.loads(body))


def row_of(record: object, *names: str) -> dict[str, Any]:
    """The named fields of a record as columns, and its body."""
    values = {name: getattr(record, name) for name in names}
    row = {name: instant(value) if isinstance(value, datetime) else value for name, value in values.items()}
    return row | {"body": body_of(record)}


def capture_row(capture: Capture) -> dict[str, Any]:
    """A row of `captures`.

    Raises:
        DataInvalid: a text that PostgreSQL or SQLite cannot hold (NUL, half a surrogate pair).
    """
    check_storable(capture)
    return {
        "capture_id": capture.capture_id,
        "task": capture.task,
        "text": capture.text,
        "label": capture.prediction.label,
        "confidence": float(capture.prediction.confidence),
        "adapter_digest": capture.adapter_digest,
        "generation": capture.generation,
        "route": capture.route,
        "captured_at": instant(capture.captured_at),
        "latency_ms": float(capture.latency_ms),
        "embedding": np.asarray(capture.embedding, dtype="<f2").tobytes(),
        "slices": json.dumps(dict(capture.slices), sort_keys=True) if capture.slices else "{}",
    }


def capture_of(row: Mapping[Any, Any]) -> Capture:
    """The capture of a row of `captures`."""
    return Capture(
        capture_id=CaptureId(row["capture_id"]),
        task=TaskName(row["task"]),
        text=row["text"],
        prediction=Prediction(label=row["label"], confidence=row["confidence"]),
        adapter_digest=AdapterDigest(row["adapter_digest"]),
        generation=row["generation"],
        route=row["route"],
        captured_at=datetime.fromisoformat(row["captured_at"]),
        latency_ms=row["latency_ms"],
        embedding=np.frombuffer(row["embedding"], dtype="<f2").astype(np.float16),
        slices=json.loads(row["slices"]),
        seq=row["seq"],
    )


def producer_of(row: Mapping[Any, Any]) -> Producer:
    """The producer of a row of `producers`."""
    seen = tuple((int(first), int(last)) for first, last in json.loads(row["seen"]))
    return Producer(producer=row["producer"], seen=seen, last_at=datetime.fromisoformat(row["last_at"]))


def producer_row(producer: Producer) -> dict[str, Any]:
    """A row of `producers`."""
    return {"producer": producer.producer, "last_at": instant(producer.last_at), "seen": json.dumps(producer.seen)}


def label_row(label: Label, capture_seq: int) -> dict[str, Any]:
    """A row of `labels`. Raises DataInvalid as ``capture_row`` does."""
    check_storable(label)
    return {
        "capture_id": label.capture_id,
        "capture_seq": capture_seq,
        "task": label.task,
        "value": label.value,
        "source": label.source,
        "labelled_at": instant(label.labelled_at),
    }


def label_of(row: Mapping[Any, Any]) -> Label:
    """The label of a row of `labels` whose columns are prefixed with `label_`."""
    return Label(
        capture_id=CaptureId(row["label_capture_id"]),
        task=TaskName(row["label_task"]),
        value=row["label_value"],
        source=row["label_source"],
        labelled_at=datetime.fromisoformat(row["label_labelled_at"]),
        seq=row["label_seq"],
    )


def ledger_row(entry: LedgerEntry) -> dict[str, Any]:
    """A row of `ledger`. The instant is written as the hash saw it."""
    names = ("seq", "kind", "task", "actor", "body", "previous_hash", "hash")
    return {name: getattr(entry, name) for name in names} | {"at": entry.at.isoformat()}


def entry_of(row: Mapping[Any, Any]) -> LedgerEntry:
    """The entry of a row of `ledger`."""
    return LedgerEntry(**{**row, "at": datetime.fromisoformat(row["at"])})
