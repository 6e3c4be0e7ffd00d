"""Builders: everything a test needs from the one thing it is about. Builders of plain records come from `record_builders`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from holdfast.domain.adapters import Fingerprint, Manifest, adapter_digest
from holdfast.domain.datasets import SnapshotRow
from holdfast.domain.ids import AdapterDigest
from holdfast.domain.records import digest_of
from holdfast.domain.retraining import CurvePoint, HoldoutScores, TrainedRung, TrainingPlan, TrainingResult
from holdfast.domain.tasks import Rung
from holdfast.domain.windows import ReferenceWindow, WindowRows
from holdfast.ports import House
from holdfast.testing.clock import SteppedClock
from holdfast.testing.memory import MemoryDatabase
from holdfast.testing.memory_stores import MemoryAdapterStore, MemorySnapshotStore, PlantedAdapter
from holdfast.testing.record_builders import (
    BASE_DIGEST,
    LABELS,
    TASK,
    a_capture,
    a_contract,
    a_digest,
    a_label,
    a_monitor_set,
    a_plan,
    a_promotion,
    a_replica_report,
    a_report,
    a_retraining,
    a_route,
    a_snapshot,
    a_snapshot_row,
    a_verdict,
    a_version,
    an_alert,
    an_assignment,
    an_example,
)
from holdfast.testing.twins import HIDDEN, CannedTrainer, ListDoorbell, ListReporter, MemoryRegistry

__all__ = [
    "BASE_DIGEST", "LABELS", "TASK", "a_capture", "a_contract", "a_digest", "a_fingerprint", "a_house", "a_label", "a_manifest",
    "a_monitor_set", "a_plan", "a_promotion", "a_reference_window", "a_replica_report", "a_report", "a_retraining", "a_route",
    "a_snapshot", "a_snapshot_row", "a_trainer", "a_training_result", "a_verdict", "a_version", "a_window", "an_adapter", "an_alert",
    "an_assignment", "an_example", "holdout_scores",
]  # fmt: skip


def a_window(row_count: int = 60, seed: int = 0, *, hidden: int = HIDDEN, share_right: float = 0.9) -> WindowRows:
    """Rows whose embeddings lie in one cluster per predicted label; every row has its label."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, len(LABELS), row_count)
    wrong = random.random(row_count) >= share_right
    said = np.where(wrong, (truth + 1) % len(LABELS), truth)
    centres = np.eye(len(LABELS), hidden) * 3
    return WindowRows(
        texts=tuple(f"{LABELS[t]} question number {n:05d} of {seed:05d}" for n, t in enumerate(truth)),
        predictions=tuple(LABELS[s] for s in said),
        confidences=random.uniform(0.5, 1.0, row_count).astype(np.float32),
        embeddings=(centres[said] + random.standard_normal((row_count, hidden))).astype(np.float32),
        labels=tuple(LABELS[t] for t in truth),
    )


def a_reference_window(seed: int = 0, *, row_count: int = 60, digest: AdapterDigest | None = None) -> ReferenceWindow:
    """Fitted and calibration rows, of one distribution and independent."""
    return ReferenceWindow(
        adapter_digest=digest or a_digest(),
        fitted=a_window(row_count, seed=2 * seed),
        calibration=a_window(row_count, seed=2 * seed + 1),
    )


def a_fingerprint() -> Fingerprint:
    """Two probes, three labels."""
    return Fingerprint(
        probes=("where is it", "i want my money"), token_counts=(5, 6), token_digest=digest_of("tokens"),
        base=((0.25, -0.5), (0.5, 0.125)), pooled=((0.25, -0.5), (0.5, 0.125)), labels=("delivery", "billing"),
        scores=((0.0, 2.0, 1.0), (3.0, 0.5, 0.25)),
    )  # fmt: skip


def a_manifest(name: str = "first", **fields: Any) -> Manifest:
    """The manifest of a head-only adapter whose bytes depend on the name alone."""
    known = {
        "task": TASK, "rung": "head", "base": "minilm", "base_digest": BASE_DIGEST, "labels": LABELS, "max_tokens": 128,
        "files": {"head.safetensors": digest_of(name)},
    }  # fmt: skip
    return cast(Any, Manifest)(**(known | fields))  # type: ignore[no-any-return]


def an_adapter(name: str = "first", *, seed: int = 0, row_count: int = 60, **fields: Any) -> PlantedAdapter:
    """What a finished adapter folder would hold, to plant in a MemoryAdapterStore."""
    manifest = a_manifest(name, **fields)
    reference = a_reference_window(seed, row_count=row_count, digest=adapter_digest(manifest))
    return PlantedAdapter(manifest=manifest, fingerprint=a_fingerprint(), reference=reference)


def holdout_scores(digest: AdapterDigest, rows: Sequence[SnapshotRow], share_right: float, seed: int = 0) -> HoldoutScores:
    """Scores on the holdout rows among ``rows``, of which about ``share_right`` are right."""
    random = np.random.default_rng(seed)
    held = [row for row in rows if row.split == "holdout"]
    labels = sorted({row.label for row in rows}) or ["none"]
    said = [row.label if random.random() < share_right else labels[(labels.index(row.label) + 1) % len(labels)] for row in held]
    return HoldoutScores(
        digest=digest, row_ids=tuple(row.row_id for row in held), predictions=tuple(said), confidences=tuple(0.9 for _ in held)
    )


def a_training_result(
    plan: TrainingPlan,
    adapters: MemoryAdapterStore,
    rows: Sequence[SnapshotRow],
    *,
    share_right: float = 0.95,
    champion_right: float = 0.6,
) -> TrainingResult:
    """What a training of ``plan`` on ``rows`` would hand over; its adapter folders are planted in ``adapters``.

    Every rung answers ``share_right`` of the holdout rows rightly, the champion of the plan ``champion_right`` of them.
    """
    rungs = tuple(_a_rung(plan, rung, adapters, seed) for seed, rung in enumerate(plan.rungs))
    scores = {r.digest: holdout_scores(r.digest, rows, share_right) for r in rungs}
    if plan.champion_digest is not None:
        scores[plan.champion_digest] = holdout_scores(plan.champion_digest, rows, champion_right, seed=1)
    return TrainingResult(key=plan.key, rungs=rungs, scores={str(digest): score for digest, score in scores.items()})


def _a_rung(plan: TrainingPlan, rung: Rung, adapters: MemoryAdapterStore, seed: int) -> TrainedRung:
    adapter = an_adapter(
        f"{plan.key}/{rung}", seed=seed, task=plan.task, rung=rung, base=plan.base, base_digest=plan.base_digest,
        labels=plan.labels, max_tokens=plan.max_tokens,
    )  # fmt: skip
    folder = Path("/nowhere/work") / plan.key / rung
    point = CurvePoint(step=10, epoch=1.0, train_loss=0.5, validation_loss=0.6, validation_accuracy=0.9)
    return TrainedRung(
        rung=rung, digest=adapters.plant(folder, adapter), folder=str(folder), seconds=1.5, byte_count=4096, curve=(point,), best_step=10
    )


def a_house(**overrides: Any) -> House:
    """A whole house of twins on a stepped clock. Unless ``trainer`` is given, every training succeeds after one look.

    The twins are the House's own fields; a test narrows them where it plants something: ``assert isinstance(house.log,
    MemoryCaptureLog)``, or makes the twin itself and gives it here.
    """
    database = MemoryDatabase()
    adapters, snapshots = MemoryAdapterStore(), MemorySnapshotStore()
    known: dict[str, Any] = {
        "unit_of_work": database.unit_of_work, "log": database.log(), "snapshots": snapshots, "adapters": adapters,
        "registry": MemoryRegistry(), "reporter": ListReporter(), "doorbell": ListDoorbell(), "clock": SteppedClock(),
        "base_digests": {"minilm": BASE_DIGEST}, "code_revision": "test",
    }  # fmt: skip
    known |= overrides
    known.setdefault("trainer", a_trainer(known["adapters"], known["snapshots"]))
    return House(**known)


def a_trainer(adapters: MemoryAdapterStore, snapshots: MemorySnapshotStore, **fields: Any) -> CannedTrainer:
    """A trainer whose every training succeeds: candidate 0.95, champion 0.6 on the holdout rows of the plan's snapshot.

    ``fields`` go to ``a_training_result``.
    """
    return CannedTrainer(lambda plan: a_training_result(plan, adapters, snapshots.load(plan.snapshot_digest), **fields))
