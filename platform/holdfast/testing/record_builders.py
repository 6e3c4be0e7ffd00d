"""Builders of records: a whole record from the one field a test is about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np

from holdfast.domain.adapters import AdapterVersion, Lineage
from holdfast.domain.alerts import Alert, fingerprint_of
from holdfast.domain.captures import Capture, Label, Prediction
from holdfast.domain.datasets import DatasetSnapshot, Example, SnapshotRow, rows_digest
from holdfast.domain.diagnosis import Diagnosis
from holdfast.domain.drift import DriftReport
from holdfast.domain.gates import CriterionResult, Verdict
from holdfast.domain.ids import (
    AdapterDigest,
    AlertId,
    CaptureId,
    PromotionId,
    ReportId,
    RetrainingId,
    ReviewId,
    SnapshotDigest,
    TaskName,
    VerdictId,
    derive,
)
from holdfast.domain.monitors import MonitorReading, MonitorSet
from holdfast.domain.promotions import Promotion
from holdfast.domain.records import digest_of
from holdfast.domain.retraining import Retraining, TrainingPlan
from holdfast.domain.review import LIFE, LabelRequest, ReviewRow
from holdfast.domain.routing import Assignment, ReplicaReport, Route
from holdfast.domain.tasks import LoraSpec, TaskContract
from holdfast.testing.clock import NOON
from holdfast.testing.twins import embedding_of

TASK = TaskName("tickets")
LABELS = ("billing", "delivery", "returns")
BASE_DIGEST = "sha256:" + "b" * 64

Built = TypeVar("Built")


def a_digest(name: str = "first") -> AdapterDigest:
    """An adapter digest that depends on the name alone."""
    return AdapterDigest(digest_of(name))


def a_contract(**fields: Any) -> TaskContract:
    """The contract of the task `tickets` with three labels and a floor of 0.8."""
    return _build(TaskContract, {"task": TASK, "labels": LABELS, "floor": 0.8}, fields)


def a_version(**fields: Any) -> AdapterVersion:
    """A head-only first version; its digest is ``a_digest()``."""
    lineage = Lineage(
        base_digest=BASE_DIGEST, snapshot_digest=SnapshotDigest(digest_of("rows")), code_revision="test", parent_digest=None, seed=0
    )
    known = {
        "digest": a_digest(), "task": TASK, "number": 1, "rung": "head", "labels": LABELS, "base": "minilm", "max_tokens": 128,
        "lineage": lineage, "created_at": NOON, "train_seconds": 1.5, "byte_count": 4096,
    }  # fmt: skip
    return _build(AdapterVersion, known, fields)


def a_capture(number: int = 1, **fields: Any) -> Capture:
    """Capture ``c-000001`` of task `tickets`, and so on; the times follow the number by seconds."""
    text = fields.get("text", f"where is my order {number}")
    known = {
        "capture_id": CaptureId(f"c-{number:06d}"), "task": TASK, "text": text,
        "prediction": Prediction(label="delivery", confidence=0.875), "adapter_digest": a_digest(), "generation": 1,
        "route": "champion", "captured_at": NOON + timedelta(seconds=number), "latency_ms": 4.5,
        "embedding": np.array(embedding_of(text), dtype=np.float16), "slices": {"channel": "mail"},
    }  # fmt: skip
    return _build(Capture, known, fields)


def a_label(number: int = 1, **fields: Any) -> Label:
    """The label of ``a_capture(number)``: `delivery`, an hour later, from `agents`."""
    known = {
        "capture_id": CaptureId(f"c-{number:06d}"), "task": TASK, "value": "delivery", "source": "agents",
        "labelled_at": NOON + timedelta(hours=1, seconds=number),
    }  # fmt: skip
    return _build(Label, known, fields)


def an_assignment(**fields: Any) -> Assignment:
    """``a_digest()`` is champion at generation 1."""
    known = {"task": TASK, "champion": a_digest(), "previous": None, "generation": 1, "changed_at": NOON}
    return _build(Assignment, known, fields)


def a_route(**fields: Any) -> Route:
    """The route that ``an_assignment()`` asks for."""
    return _build(Route, {"task": TASK, "champion": a_digest(), "generation": 1}, fields)


def a_replica_report(**fields: Any) -> ReplicaReport:
    """A replica that holds ``a_digest()``."""
    known = {"replica_id": "replica-1", "ready": (a_digest(),), "refused": {}, "generation": 1, "reported_at": NOON}
    return _build(ReplicaReport, known, fields)


def a_monitor_set(**fields: Any) -> MonitorSet:
    """Monitors that have read 40 captures and are quiet."""
    reading = MonitorReading(
        monitor="quality", status="quiet", log_evidence=0.25, log_threshold=12.5, event_count=40, onset_seq=0, detail={"share_wrong": 0.1}
    )
    known = {
        "task": TASK, "adapter_digest": a_digest(), "capture_cursor": 40, "label_cursor": 12, "report_cursor": 0,
        "states": {"quality": "{}"}, "readings": (reading,), "updated_at": NOON,
    }  # fmt: skip
    return _build(MonitorSet, known, fields)


def a_report(number: int = 1, **fields: Any) -> DriftReport:
    """A drift report of 500 rows."""
    known = {
        "report_id": ReportId(derive("rep", TASK, number)), "task": TASK, "adapter_digest": a_digest(), "first_seq": 1,
        "last_seq": 500, "row_count": 500, "labelled_count": 60, "created_at": NOON + timedelta(minutes=number),
        "metrics": {"drifted_share": 0.25}, "html_path": f"reports/{number}.html",
    }  # fmt: skip
    return _build(DriftReport, known, fields)


def an_alert(number: int = 1, **fields: Any) -> Alert:
    """An open alert on concept change whose action is to retrain."""
    diagnosis = Diagnosis(cause="concept change", action="retrain", sentence="Answers went wrong.", evidence={"share_wrong": 0.4})
    known = {
        "alert_id": AlertId(derive("alr", TASK, number)), "task": TASK, "adapter_digest": a_digest(),
        "fingerprint": fingerprint_of(TASK, a_digest(), f"family-{number}"), "monitors": ("quality",), "state": "open",
        "opened_at": NOON + timedelta(minutes=number), "updated_at": NOON + timedelta(minutes=number), "event_seq": 120,
        "onset_seq": 100, "diagnosis": diagnosis,
    }  # fmt: skip
    return _build(Alert, known, fields)


def a_retraining(number: int = 1, **fields: Any) -> Retraining:
    """A retraining that was just requested and is due."""
    at = NOON + timedelta(minutes=number)
    known = {
        "retraining_id": RetrainingId(derive("rtr", TASK, number)), "task": TASK, "alert_id": None, "reason": "asked by hand",
        "requested_by": "test", "requested_at": at, "since_seq": 0, "due_at": at,
    }  # fmt: skip
    return _build(Retraining, known, fields)


def a_verdict(number: int = 1, **fields: Any) -> Verdict:
    """A pass on ``a_digest()`` as a first version."""
    criterion = CriterionResult(
        name="floor", outcome="pass", observed=0.95, lower=0.9, upper=0.98, threshold=0.8, row_count=200, reason="0.95 is above the floor"
    )
    known = {
        "verdict_id": VerdictId(derive("ver", TASK, number)), "task": TASK, "candidate": a_digest(), "champion": None,
        "snapshot_digest": SnapshotDigest(digest_of("rows")), "policy_digest": digest_of("policy"), "outcome": "pass",
        "criteria": (criterion,), "judged_at": NOON + timedelta(minutes=number), "expires_at": NOON + timedelta(days=7),
    }  # fmt: skip
    return _build(Verdict, known, fields)


def a_promotion(number: int = 1, **fields: Any) -> Promotion:
    """The promotion of ``a_digest()``, live at once."""
    known = {
        "promotion_id": PromotionId(derive("pro", TASK, number)), "task": TASK, "kind": "promotion", "digest": a_digest(),
        "from_digest": None, "verdict_id": VerdictId(derive("ver", TASK, 1)), "generation": number, "actor": "test",
        "reason": "it passed", "state": "live", "created_at": NOON + timedelta(minutes=number), "live_at": NOON,
    }  # fmt: skip
    return _build(Promotion, known, fields)


def a_review_row(number: int = 0, **fields: Any) -> ReviewRow:
    """A row of ``a_label_request`` on ``a_capture(number)``, drawn once, which nobody has answered."""
    known = {
        "capture_id": CaptureId(f"c-{number:06d}"), "seq": number, "period": "since", "draws": (number,), "weight": 1.0,
        "said": "delivery", "confidence": 0.875,
    }  # fmt: skip
    return _build(ReviewRow, known, fields)


def a_label_request(number: int = 1, **fields: Any) -> LabelRequest:
    """An open request for 30 of 500 captures, asked for by a person."""
    known = {
        "request_id": ReviewId(derive("rev", TASK, number)), "task": TASK, "adapter_digest": a_digest(), "alert_id": None,
        "asked_by": "ann", "asked_at": NOON, "expires_at": NOON + LIFE, "onset_seq": 0, "since_count": 500, "before_count": 0,
        "rows": tuple(a_review_row(n) for n in range(30)),
    }  # fmt: skip
    return _build(LabelRequest, known, fields)


def an_example(number: int = 1, **fields: Any) -> Example:
    """An example whose label turns with its number."""
    label = LABELS[number % len(LABELS)]
    return _build(Example, {"text": f"{label} question number {number}", "label": label}, fields)


def a_snapshot_row(number: int = 0, **fields: Any) -> SnapshotRow:
    """A row whose label and split turn with its number: of five, three train, one validation, one holdout."""
    label = LABELS[number % len(LABELS)]
    split = ("train", "train", "train", "validation", "holdout")[number % 5]
    known = {
        "row_id": number,
        "text": f"{label} question number {number}",
        "label": label,
        "split": split,
        "period": "past",
        "source": "file",
    }
    return _build(SnapshotRow, known, fields)


def a_snapshot(rows: Sequence[SnapshotRow] = (), **fields: Any) -> DatasetSnapshot:
    """The record of the given rows (of 30 built ones when there are none)."""
    rows = tuple(rows) or tuple(a_snapshot_row(n) for n in range(30))
    splits = [(row.split, row.period) for row in rows]
    known = {
        "digest": rows_digest(rows), "task": TASK, "row_count": len(rows),
        "train_count": sum(split == "train" for split, _ in splits),
        "validation_count": sum(split == "validation" for split, _ in splits),
        "holdout_past_count": splits.count(("holdout", "past")), "holdout_recent_count": splits.count(("holdout", "recent")),
        "labels": tuple(sorted({row.label for row in rows})), "created_at": NOON,
    }  # fmt: skip
    return _build(DatasetSnapshot, known, fields)


def a_plan(**fields: Any) -> TrainingPlan:
    """A plan for both rungs of a first version."""
    known = {
        "key": "plan-1", "task": TASK, "base": "minilm", "base_digest": BASE_DIGEST, "labels": LABELS, "max_tokens": 128,
        "rungs": ("head", "lora"), "lora": LoraSpec(), "seed": 0, "snapshot_digest": a_snapshot().digest, "champion_digest": None,
    }  # fmt: skip
    return _build(TrainingPlan, known, fields)


def _build(kind: type[Built], known: dict[str, Any], given: dict[str, Any]) -> Built:
    return cast(Built, cast(Any, kind)(**(known | given)))
