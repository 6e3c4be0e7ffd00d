"""The repositories of the database in memory: the same constraints and errors as the SQL ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import TypeVar

from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.alerts import Alert
from holdfast.domain.datasets import DatasetSnapshot
from holdfast.domain.drift import DriftReport
from holdfast.domain.gates import Verdict
from holdfast.domain.ids import AdapterDigest, AlertId, PromotionId, RetrainingId, SnapshotDigest, TaskName, VerdictId
from holdfast.domain.ledger import LedgerEntry, chain
from holdfast.domain.monitors import MonitorSet
from holdfast.domain.promotions import Promotion
from holdfast.domain.records import canonical
from holdfast.domain.retraining import ENDED, Retraining
from holdfast.domain.review import LabelRequest
from holdfast.domain.routing import Assignment, ReplicaReport, Route, RoutingTable
from holdfast.domain.tasks import TaskContract
from holdfast.errors import AlreadyExists, Conflict, LeaseLost, NotFound, StaleGeneration

Item = TypeVar("Item")


@dataclass
class Tables:
    """Everything a database holds, by key. Insertion order is the order of first writing."""

    contracts: dict[str, TaskContract] = field(default_factory=dict)
    versions: dict[str, AdapterVersion] = field(default_factory=dict)
    assignments: dict[str, Assignment] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    replicas: dict[str, ReplicaReport] = field(default_factory=dict)
    monitors: dict[tuple[str, str], MonitorSet] = field(default_factory=dict)
    reports: dict[str, DriftReport] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    retrainings: dict[str, Retraining] = field(default_factory=dict)
    snapshots: dict[str, DatasetSnapshot] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    promotions: dict[str, Promotion] = field(default_factory=dict)
    reviews: dict[str, LabelRequest] = field(default_factory=dict)
    ledger: list[LedgerEntry] = field(default_factory=list)
    keys: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Name to hash and whether it is still valid."""
    generation: int = 0

    def copied(self) -> Tables:
        """Tables that share the records but not the containers."""
        return Tables(**{f.name: copy(getattr(self, f.name)) for f in fields(self)})


@dataclass(slots=True)
class _Repository:
    tables: Tables


class MemoryContracts(_Repository):
    def put(self, contract: TaskContract, at: datetime) -> None:
        self.tables.contracts[contract.task] = _sound(contract)

    def get(self, task: TaskName) -> TaskContract:
        return _found(self.tables.contracts, "task", task)

    def all(self) -> tuple[TaskContract, ...]:
        return tuple(self.tables.contracts[name] for name in sorted(self.tables.contracts))


class MemoryVersions(_Repository):
    def put(self, version: AdapterVersion) -> None:
        for other in self.tables.versions.values():
            if (other.task, other.number) == (version.task, version.number) and other.digest != version.digest:
                raise Conflict(problem=f"Version {version.number} of task {version.task} is another adapter.")
        self.tables.versions[version.digest] = _sound(version)

    def get(self, digest: AdapterDigest) -> AdapterVersion:
        return _found(self.tables.versions, "adapter version", digest)

    def find(self, digest: AdapterDigest) -> AdapterVersion | None:
        return self.tables.versions.get(digest)

    def of_task(self, task: TaskName) -> tuple[AdapterVersion, ...]:
        return tuple(sorted((v for v in self.tables.versions.values() if v.task == task), key=lambda v: v.number))

    def all(self) -> tuple[AdapterVersion, ...]:
        return tuple(sorted(self.tables.versions.values(), key=lambda v: (v.task, v.number)))


class MemoryAssignments(_Repository):
    def get(self, task: TaskName) -> Assignment | None:
        return self.tables.assignments.get(task)

    def all(self) -> Mapping[str, Assignment]:
        return dict(self.tables.assignments)

    def next_generation(self) -> int:
        given = [a.generation for a in self.tables.assignments.values()]
        given += [r.generation for r in self.tables.routes.values()]
        self.tables.generation = max([self.tables.generation, *given]) + 1
        return self.tables.generation

    def put(self, assignment: Assignment, *, expected_generation: int | None) -> None:
        stored = self.tables.assignments.get(assignment.task)
        actual = None if stored is None else stored.generation
        if actual != expected_generation:
            raise StaleGeneration(task=assignment.task, actual=actual, expected=expected_generation)
        if any(a.generation == assignment.generation for a in self.tables.assignments.values()):
            raise Conflict(problem=f"Generation {assignment.generation} was given already.")
        self.tables.assignments[assignment.task] = _sound(assignment)

    def mark_stuck(self, task: TaskName, generation: int, reason: str | None) -> None:
        stored = self.tables.assignments.get(task)
        if stored is not None and stored.generation == generation:
            self.tables.assignments[task] = _sound(replace(stored, stuck_reason=reason))

    def publish(self, route: Route) -> None:
        stored = self.tables.routes.get(route.task)
        if stored is None or stored.generation <= route.generation:
            self.tables.routes[route.task] = _sound(route)

    def table(self) -> RoutingTable:
        routes = dict(self.tables.routes)
        return RoutingTable(generation=max((r.generation for r in routes.values()), default=0), routes=routes)


class MemoryReplicas(_Repository):
    def report(self, report: ReplicaReport) -> None:
        self.tables.replicas[report.replica_id] = _sound(report)

    def live(self, since: datetime) -> tuple[ReplicaReport, ...]:
        return tuple(sorted((r for r in self.tables.replicas.values() if r.reported_at >= since), key=lambda r: r.replica_id))


class MemoryMonitors(_Repository):
    def get(self, task: TaskName, digest: AdapterDigest) -> MonitorSet | None:
        return self.tables.monitors.get((task, digest))

    def put(self, monitors: MonitorSet) -> None:
        key = (monitors.task, monitors.adapter_digest)
        stored = self.tables.monitors.get(key)
        if (0 if stored is None else stored.version) != monitors.version:
            raise Conflict(problem=f"The monitors of task {monitors.task} were saved by another worker.")
        self.tables.monitors[key] = _sound(replace(monitors, version=monitors.version + 1))


class MemoryReports(_Repository):
    def put(self, report: DriftReport) -> None:
        self.tables.reports[report.report_id] = _sound(report)

    def of_task(self, task: TaskName, limit: int = 50) -> tuple[DriftReport, ...]:
        return _newest((r for r in self.tables.reports.values() if r.task == task), lambda r: r.created_at)[:limit]


class MemoryAlerts(_Repository):
    def put(self, alert: Alert) -> None:
        twins = [a for a in self.unresolved() if a.fingerprint == alert.fingerprint and a.alert_id != alert.alert_id]
        if twins and alert.state in ("open", "acknowledged"):
            raise Conflict(problem=f"Alert {twins[0].alert_id} with the same fingerprint is open.")
        self.tables.alerts[alert.alert_id] = _sound(alert)

    def get(self, alert_id: AlertId) -> Alert:
        return _found(self.tables.alerts, "alert", alert_id)

    def of_task(self, task: TaskName) -> tuple[Alert, ...]:
        return _newest((a for a in self.tables.alerts.values() if a.task == task), lambda a: a.opened_at)

    def unresolved(self) -> tuple[Alert, ...]:
        living = (a for a in self.tables.alerts.values() if a.state in ("open", "acknowledged"))
        return tuple(sorted(living, key=lambda a: a.opened_at))


class MemoryRetrainings(_Repository):
    def request(self, retraining: Retraining) -> Retraining:
        return self.tables.retrainings.setdefault(retraining.retraining_id, _sound(retraining))

    def get(self, retraining_id: RetrainingId) -> Retraining:
        return _found(self.tables.retrainings, "retraining", retraining_id)

    def of_task(self, task: TaskName) -> tuple[Retraining, ...]:
        return _newest((r for r in self.tables.retrainings.values() if r.task == task), lambda r: r.requested_at)

    def due(self, now: datetime) -> tuple[Retraining, ...]:
        return tuple(sorted((r for r in self.tables.retrainings.values() if _is_due(r, now)), key=lambda r: r.requested_at))

    def claim(self, retraining_id: RetrainingId, *, owner: str, now: datetime, lease_s: float) -> Retraining | None:
        stored = self.get(retraining_id)
        if not _is_due(stored, now):
            return None
        claimed = replace(stored, lease_owner=owner, lease_until=now + timedelta(seconds=lease_s), fence=stored.fence + 1)
        self.tables.retrainings[retraining_id] = claimed
        return claimed

    def save(self, retraining: Retraining) -> None:
        if self.get(retraining.retraining_id).fence > retraining.fence:
            raise LeaseLost(retraining_id=retraining.retraining_id)
        self.tables.retrainings[retraining.retraining_id] = _sound(retraining)


class MemorySnapshots(_Repository):
    def put(self, snapshot: DatasetSnapshot) -> None:
        self.tables.snapshots[snapshot.digest] = _sound(snapshot)

    def get(self, digest: SnapshotDigest) -> DatasetSnapshot:
        return _found(self.tables.snapshots, "dataset snapshot", digest)

    def of_task(self, task: TaskName) -> tuple[DatasetSnapshot, ...]:
        return _newest((s for s in self.tables.snapshots.values() if s.task == task), lambda s: s.created_at)


class MemoryVerdicts(_Repository):
    def put(self, verdict: Verdict) -> None:
        self.tables.verdicts[verdict.verdict_id] = _sound(verdict)

    def get(self, verdict_id: VerdictId) -> Verdict:
        return _found(self.tables.verdicts, "verdict", verdict_id)

    def newest_of(self, digest: AdapterDigest) -> Verdict | None:
        return next(iter(_newest((v for v in self.tables.verdicts.values() if v.candidate == digest), lambda v: v.judged_at)), None)


class MemoryPromotions(_Repository):
    def put(self, promotion: Promotion) -> None:
        self.tables.promotions[promotion.promotion_id] = _sound(promotion)

    def get(self, promotion_id: PromotionId) -> Promotion:
        return _found(self.tables.promotions, "promotion", promotion_id)

    def of_task(self, task: TaskName) -> tuple[Promotion, ...]:
        return _newest((p for p in self.tables.promotions.values() if p.task == task), lambda p: p.created_at)


class MemoryLedger(_Repository):
    def append(self, *, at: datetime, kind: str, task: str, actor: str, body: Mapping[str, object]) -> LedgerEntry:
        newest = self.tables.ledger[-1] if self.tables.ledger else None
        entry = chain(newest, at=at, kind=kind, task=task, actor=actor, body=body)
        self.tables.ledger.append(entry)
        return entry

    def entries(self, *, after: int = 0, limit: int = 1_000) -> tuple[LedgerEntry, ...]:
        return tuple(e for e in self.tables.ledger if e.seq > after)[:limit]

    def count(self) -> int:
        return len(self.tables.ledger)


class MemoryKeys(_Repository):
    def add(self, *, name: str, key_hash: str, created_at: datetime) -> None:
        if name in self.tables.keys or any(key_hash == stored for stored, _ in self.tables.keys.values()):
            raise AlreadyExists(kind="key", name=name)
        self.tables.keys[name] = (key_hash, True)

    def revoke(self, name: str) -> None:
        key_hash, _ = _found(self.tables.keys, "key", name)
        self.tables.keys[name] = (key_hash, False)

    def valid(self) -> Mapping[str, str]:
        return {key_hash: name for name, (key_hash, valid) in self.tables.keys.items() if valid}


def _found(table: Mapping[str, Item], kind: str, name: str) -> Item:
    if name not in table:
        raise NotFound(kind=kind, name=name)
    return table[name]


def _sound(record: Item) -> Item:
    """The record, if a database could hold it. Raises ValueError on NaN and infinities, TypeError on what no record may hold."""
    canonical(record)
    return record


def _newest(items: Iterable[Item], when: Callable[[Item], datetime]) -> tuple[Item, ...]:
    """Newest first; of one instant, what was written last comes first."""
    return tuple(sorted(items, key=when)[::-1])


def _is_due(retraining: Retraining, now: datetime) -> bool:
    free = retraining.lease_until is None or retraining.lease_until <= now
    return retraining.state not in ENDED and retraining.due_at <= now and free
