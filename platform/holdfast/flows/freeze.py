"""Freeze: the rows of a training, as a snapshot that never changes. The first half of the arrow `retrain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.answers import kind_of, labels_in
from holdfast.domain.datasets import DatasetSnapshot, Example, SnapshotRow, TaughtRows, rows_digest
from holdfast.domain.exclusions import admitted
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.labelling import FORMS, problem_of
from holdfast.domain.records import to_plain
from holdfast.domain.retraining import SEED, Retraining
from holdfast.domain.splits import FrozenRows, first_snapshot, next_snapshot, normalised
from holdfast.domain.tasks import TaskContract
from holdfast.errors import DataInvalid, LabelUnknown, NotFound
from holdfast.ports import House, UnitOfWork


def add_examples(house: House, task: TaskName, examples: Sequence[Example], *, actor: str) -> DatasetSnapshot:
    """Freeze a person's examples as the first snapshot of a task. The same examples give the same snapshot.

    Raises NotFound (task), LabelUnknown unless the contract leaves its labels open, DataInvalid when a label is no answer to its text,
    StorageRefused.
    """
    with house.unit_of_work() as uow:
        contract = uow.contracts.get(task)
    for number, example in enumerate(examples, start=1):
        unknown = [] if contract.labels_open else [label for label in labels_in(example.label) if label not in contract.labels]
        if unknown and kind_of(example.label) == contract.kind:
            raise LabelUnknown(label=unknown[0], task=task, known=", ".join(contract.labels))
        problem = problem_of(example.label, example.text, contract)
        if problem is not None:
            raise DataInvalid(source="the examples", problem=problem, place=example.place or f"row {number}", remedy=FORMS[contract.kind])
    now = house.clock()
    rows = first_snapshot(examples, seed=SEED, policy=contract.retraining, sealed=sealed_texts(house, task))
    snapshot = replace(_freeze(house, task, rows, now), origin="person")
    with house.unit_of_work() as uow:
        uow.snapshots.put(snapshot)
        uow.ledger.append(
            at=now, kind="dataset.frozen", task=task, actor=actor, body={"snapshot": snapshot.digest, "rows": snapshot.row_count}
        )
        uow.commit()
    return snapshot


def freeze_with_labels(house: House, r: Retraining, contract: TaskContract, champion: AdapterDigest | None) -> tuple[DatasetSnapshot, int]:
    """The champion's rows, what people brought since, and every label since, frozen; with the number of recent labels among them.

    Raises NotFound when there is no champion to build upon, StorageRefused.
    """
    if champion is None:
        raise NotFound(kind="dataset of task", name=r.task)
    with house.unit_of_work() as uow:
        parent = uow.versions.get(champion)
        alerts = uow.alerts.of_task(r.task)
    past = _with_brought(house, parent)
    known = {row.capture_id for row in past if row.capture_id is not None}
    labelled = [item for item in house.log.labelled_since(r.task, 0) if item.capture.capture_id not in known]
    reference = house.adapters.reference(champion)
    labelled = admitted(labelled, alerts, reference.fitted.texts)
    policy, sealed = contract.retraining, sealed_texts(house, r.task)
    frozen = next_snapshot(past, labelled, since_seq=r.since_seq, reference=reference, policy=policy, seed=SEED, sealed=sealed)
    recent_count = sum(item.capture.seq >= r.since_seq for item in labelled)
    return _freeze(house, r.task, frozen, house.clock()), recent_count


def sealed_texts(house: House, task: TaskName) -> tuple[str, ...]:
    """The texts that were held out for any version of a task: what no version of it may train on. Raises NotFound when rows are gone."""
    with house.unit_of_work() as uow:
        digests = dict.fromkeys(version.lineage.snapshot_digest for version in uow.versions.of_task(task))
    rows = (row for digest in digests for row in house.snapshots.load(digest))
    return tuple(dict.fromkeys(row.text for row in rows if row.split == "holdout"))


def labels_of(contract: TaskContract, rows: Sequence[SnapshotRow]) -> tuple[str, ...]:
    """The contract's labels in its order, then labels that came later, sorted; only those that have a training row."""
    present = {label for row in rows if row.split == "train" for label in labels_in(row.label)}
    later = sorted(present.difference(contract.labels))
    return tuple(label for label in (*contract.labels, *later) if label in present)


def note_taught(uow: UnitOfWork, r: Retraining, taught: TaughtRows | None, now: datetime) -> None:
    """Write down, on the snapshot and in the ledger, which of its training rows taught, where the trainer says it."""
    assert r.snapshot_digest is not None, "a training has rows"
    snapshot = uow.snapshots.get(r.snapshot_digest)
    if taught is None or snapshot.taught == taught:
        return
    uow.snapshots.put(replace(snapshot, taught=taught))
    body = {
        "retraining_id": r.retraining_id, "snapshot": snapshot.digest, "taught": taught.taught_count, "replay_share": taught.replay_share,
        "suspected": [row.row_id for row in taught.suspected], "replay_trials": to_plain(taught.replay_trials),
    }  # fmt: skip
    uow.ledger.append(at=now, kind="dataset.taught", task=r.task, actor="loop", body=body)


def _with_brought(house: House, parent: AdapterVersion) -> tuple[SnapshotRow, ...]:
    """The parent's rows, and those that a person has brought since it was made; a text keeps the split it had."""
    rows = house.snapshots.load(parent.lineage.snapshot_digest)
    with house.unit_of_work() as uow:
        later = [s.digest for s in uow.snapshots.of_task(parent.task) if s.origin == "person" and s.created_at > parent.created_at]
    known = {normalised(row.text) for row in rows}
    for digest in reversed(later):
        fresh = tuple(row for row in house.snapshots.load(digest) if normalised(row.text) not in known)
        known.update(normalised(row.text) for row in fresh)
        rows += fresh
    return rows


def _freeze(house: House, task: TaskName, frozen: FrozenRows, now: datetime) -> DatasetSnapshot:
    rows = frozen.rows
    digest = rows_digest(rows)
    house.snapshots.save(digest, rows)
    held = [row for row in rows if row.split == "holdout"]
    return DatasetSnapshot(
        digest=digest,
        task=task,
        row_count=len(rows),
        train_count=sum(row.split == "train" for row in rows),
        validation_count=sum(row.split == "validation" for row in rows),
        holdout_past_count=sum(row.period == "past" for row in held),
        holdout_recent_count=sum(row.period == "recent" for row in held),
        labels=tuple(sorted({label for row in rows for label in labels_in(row.label)})),
        created_at=now,
        contradicted_count=frozen.contradicted_count,
        left_out=frozen.left_out,
    )
