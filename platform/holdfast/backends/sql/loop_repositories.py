"""The records of the loop as tables: monitors, reports, alerts, retrainings, snapshots, verdicts, promotions, label requests."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Column, Select, Table, or_, select, update

from holdfast.backends.sql import tables
from holdfast.backends.sql.repositories import Repository
from holdfast.backends.sql.rows import instant, record_of, row_of
from holdfast.domain.alerts import Alert
from holdfast.domain.datasets import DatasetSnapshot
from holdfast.domain.drift import DriftReport
from holdfast.domain.gates import Verdict
from holdfast.domain.ids import AdapterDigest, AlertId, PromotionId, RetrainingId, ReviewId, SnapshotDigest, TaskName, VerdictId
from holdfast.domain.monitors import MonitorSet
from holdfast.domain.promotions import Promotion
from holdfast.domain.retraining import ENDED, Retraining
from holdfast.domain.review import LabelRequest
from holdfast.errors import Conflict, LeaseLost, NotFound

Record = TypeVar("Record")
RETRAINING_COLUMNS = ("retraining_id", "task", "state", "requested_at", "due_at", "lease_until", "fence")


class _Records(Repository):
    """What the tables of records share."""

    def _one(self, kind: type[Record], column: Column[str], value: str, *, noun: str) -> Record:
        body = self.transaction.run(select(column.table.c.body).where(column == value)).scalar()
        if body is None:
            raise NotFound(kind=noun, name=value)
        return record_of(kind, body)

    def _newest(self, kind: type[Record], table: Table, by: str, where: tuple[str, str], limit: int | None = None) -> tuple[Record, ...]:
        """Newest first by the column ``by``; of one instant, what was written last comes first."""
        column, value = where
        statement = select(table.c.body).where(table.c[column] == value).order_by(table.c[by].desc(), table.c.seq.desc()).limit(limit)
        return tuple(record_of(kind, body) for body in self.transaction.run(statement).scalars())


class SqlMonitors(_Records):
    """See ``ports.Monitors``."""

    def get(self, task: TaskName, digest: AdapterDigest) -> MonitorSet | None:
        t = tables.monitor_sets
        body = self.transaction.run(select(t.c.body).where(t.c.task == task, t.c.digest == digest)).scalar()
        return None if body is None else record_of(MonitorSet, body)

    def put(self, monitors: MonitorSet) -> None:
        self.transaction.lock()
        t = tables.monitor_sets
        here = (t.c.task == monitors.task) & (t.c.digest == monitors.adapter_digest)
        stored = self.transaction.run(select(t.c.version).where(here)).scalar()
        if (stored or 0) != monitors.version:
            raise Conflict(problem=f"The monitors of task {monitors.task} were saved by another worker.")
        row = row_of(replace(monitors, version=monitors.version + 1), "task", "version") | {"digest": monitors.adapter_digest}
        self.transaction.upsert(t, row, key=["task", "digest"])


class SqlReports(_Records):
    """See ``ports.Reports``."""

    def put(self, report: DriftReport) -> None:
        self.transaction.upsert(tables.reports, row_of(report, "report_id", "task", "created_at"), key=["report_id"])

    def of_task(self, task: TaskName, limit: int = 50) -> tuple[DriftReport, ...]:
        return self._newest(DriftReport, tables.reports, "created_at", ("task", task), limit)


class SqlAlerts(_Records):
    """See ``ports.Alerts``."""

    def put(self, alert: Alert) -> None:
        self.transaction.lock()
        t = tables.alerts
        living = t.c.state.in_(("open", "acknowledged"))
        others = select(t.c.alert_id).where(t.c.fingerprint == alert.fingerprint, t.c.alert_id != alert.alert_id, living)
        other = self.transaction.run(others).scalar()
        if other is not None and alert.state in ("open", "acknowledged"):
            raise Conflict(problem=f"Alert {other} with the same fingerprint is open.")
        self.transaction.upsert(t, row_of(alert, "alert_id", "task", "fingerprint", "state", "opened_at"), key=["alert_id"])

    def get(self, alert_id: AlertId) -> Alert:
        return self._one(Alert, tables.alerts.c.alert_id, alert_id, noun="alert")

    def of_task(self, task: TaskName) -> tuple[Alert, ...]:
        return self._newest(Alert, tables.alerts, "opened_at", ("task", task))

    def unresolved(self) -> tuple[Alert, ...]:
        t = tables.alerts
        statement = select(t.c.body).where(t.c.state.in_(("open", "acknowledged"))).order_by(t.c.opened_at, t.c.seq)
        return tuple(record_of(Alert, body) for body in self.transaction.run(statement).scalars())


class SqlRetrainings(_Records):
    """See ``ports.Retrainings``."""

    def request(self, retraining: Retraining) -> Retraining:
        self.transaction.add_new(tables.retrainings, [row_of(retraining, *RETRAINING_COLUMNS)], key=["retraining_id"])
        return self.get(retraining.retraining_id)

    def get(self, retraining_id: RetrainingId) -> Retraining:
        return self._one(Retraining, tables.retrainings.c.retraining_id, retraining_id, noun="retraining")

    def of_task(self, task: TaskName) -> tuple[Retraining, ...]:
        return self._newest(Retraining, tables.retrainings, "requested_at", ("task", task))

    def due(self, now: datetime) -> tuple[Retraining, ...]:
        t = tables.retrainings
        free = or_(t.c.lease_until.is_(None), t.c.lease_until <= instant(now))
        statement = select(t.c.body).where(t.c.state.not_in(ENDED), t.c.due_at <= instant(now), free).order_by(t.c.requested_at, t.c.seq)
        return tuple(record_of(Retraining, body) for body in self.transaction.run(statement).scalars())

    def claim(self, retraining_id: RetrainingId, *, owner: str, now: datetime, lease_s: float) -> Retraining | None:
        self.transaction.lock()
        stored = self.get(retraining_id)
        free = stored.lease_until is None or stored.lease_until <= now
        if stored.state in ENDED or stored.due_at > now or not free:
            return None
        claimed = replace(stored, lease_owner=owner, lease_until=now + timedelta(seconds=lease_s), fence=stored.fence + 1)
        self.save(claimed)
        return claimed

    def save(self, retraining: Retraining) -> None:
        self.transaction.lock()
        t = tables.retrainings
        here = t.c.retraining_id == retraining.retraining_id
        row = row_of(retraining, *RETRAINING_COLUMNS)
        if self.transaction.run(update(t).where(here, t.c.fence <= retraining.fence).values(row)).rowcount == 0:
            self.get(retraining.retraining_id)  # NotFound, when that is why
            raise LeaseLost(retraining_id=retraining.retraining_id)


class SqlSnapshots(_Records):
    """See ``ports.Snapshots``."""

    def put(self, snapshot: DatasetSnapshot) -> None:
        self.transaction.upsert(tables.snapshots, row_of(snapshot, "digest", "task", "created_at"), key=["digest"])

    def get(self, digest: SnapshotDigest) -> DatasetSnapshot:
        return self._one(DatasetSnapshot, tables.snapshots.c.digest, digest, noun="dataset snapshot")

    def of_task(self, task: TaskName) -> tuple[DatasetSnapshot, ...]:
        return self._newest(DatasetSnapshot, tables.snapshots, "created_at", ("task", task))


class SqlVerdicts(_Records):
    """See ``ports.Verdicts``."""

    def put(self, verdict: Verdict) -> None:
        row = row_of(verdict, "verdict_id", "task", "candidate", "outcome", "judged_at")
        self.transaction.upsert(tables.verdicts, row, key=["verdict_id"])

    def get(self, verdict_id: VerdictId) -> Verdict:
        return self._one(Verdict, tables.verdicts.c.verdict_id, verdict_id, noun="verdict")

    def newest_of(self, digest: AdapterDigest) -> Verdict | None:
        found = self._newest(Verdict, tables.verdicts, "judged_at", ("candidate", digest), 1)
        return found[0] if found else None


class SqlPromotions(_Records):
    """See ``ports.Promotions``."""

    def put(self, promotion: Promotion) -> None:
        row = row_of(promotion, "promotion_id", "task", "digest", "generation", "state", "created_at")
        self.transaction.upsert(tables.promotions, row, key=["promotion_id"])

    def get(self, promotion_id: PromotionId) -> Promotion:
        return self._one(Promotion, tables.promotions.c.promotion_id, promotion_id, noun="promotion")

    def of_task(self, task: TaskName) -> tuple[Promotion, ...]:
        return self._newest(Promotion, tables.promotions, "created_at", ("task", task))


class SqlReviews(_Records):
    """See ``ports.Reviews``."""

    def put(self, request: LabelRequest) -> None:
        self.transaction.lock()
        t = tables.reviews
        stored = self.transaction.run(select(t.c.version).where(t.c.request_id == request.request_id)).scalar()
        if (stored or 0) != request.version:
            raise Conflict(problem=f"Review {request.request_id} was changed by somebody else.")
        other = self.transaction.run(self._open(request.task).where(t.c.request_id != request.request_id)).first()
        if other is not None and request.state == "open":
            raise Conflict(problem=f"A review of task {request.task} is open already.")
        row = row_of(replace(request, version=request.version + 1), "request_id", "task", "state", "asked_at", "version")
        self.transaction.upsert(t, row, key=["request_id"])

    def get(self, request_id: ReviewId) -> LabelRequest:
        return self._one(LabelRequest, tables.reviews.c.request_id, request_id, noun="review")

    def open_of(self, task: TaskName) -> LabelRequest | None:
        body = self.transaction.run(self._open(task)).scalar()
        return None if body is None else record_of(LabelRequest, body)

    def of_task(self, task: TaskName, limit: int = 20) -> tuple[LabelRequest, ...]:
        return self._newest(LabelRequest, tables.reviews, "asked_at", ("task", task), limit)

    def _open(self, task: TaskName) -> Select[tuple[str]]:
        t = tables.reviews
        return select(t.c.body).where(t.c.task == task, t.c.state == "open")
