"""Contracts, versions, who answers, the ledger and the keys, as tables. The records of the loop are in `loop_repositories`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import func, select, update

from holdfast.backends.sql import tables
from holdfast.backends.sql.rows import body_of, entry_of, instant, ledger_row, record_of, row_of
from holdfast.backends.sql.transaction import Transaction
from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.ledger import LedgerEntry, chain
from holdfast.domain.records import digest_of
from holdfast.domain.routing import Assignment, ReplicaReport, Route, RoutingTable
from holdfast.domain.tasks import TaskContract
from holdfast.errors import AlreadyExists, Conflict, NotFound, StaleGeneration


@dataclass(slots=True)
class Repository:
    """Reads and writes inside one transaction."""

    transaction: Transaction


class SqlContracts(Repository):
    """See ``ports.Contracts``. Older contracts stay in the table, for whoever re-derives a verdict."""

    def put(self, contract: TaskContract, at: datetime) -> None:
        self.transaction.lock()
        row = {"task": contract.task, "digest": digest_of(contract), "put_at": instant(at), "body": body_of(contract)}
        t = tables.contracts
        newest = self.transaction.run(select(t.c.digest).where(t.c.task == contract.task).order_by(t.c.seq.desc()).limit(1)).scalar()
        if newest != row["digest"]:
            self.transaction.run(t.insert().values(row))

    def get(self, task: TaskName) -> TaskContract:
        t = tables.contracts
        body = self.transaction.run(select(t.c.body).where(t.c.task == task).order_by(t.c.seq.desc()).limit(1)).scalar()
        if body is None:
            raise NotFound(kind="task", name=task)
        return record_of(TaskContract, body)

    def all(self) -> tuple[TaskContract, ...]:
        t = tables.contracts
        newest = select(func.max(t.c.seq)).group_by(t.c.task)
        bodies = self.transaction.run(select(t.c.body).where(t.c.seq.in_(newest))).scalars()
        return tuple(sorted((record_of(TaskContract, body) for body in bodies), key=lambda c: c.task))


class SqlVersions(Repository):
    """See ``ports.Versions``."""

    def put(self, version: AdapterVersion) -> None:
        self.transaction.lock()
        t = tables.versions
        same = select(t.c.digest).where(t.c.task == version.task, t.c.number == version.number)
        if self.transaction.run(same).scalar() not in (None, version.digest):
            raise Conflict(problem=f"Version {version.number} of task {version.task} is another adapter.")
        self.transaction.upsert(t, row_of(version, "digest", "task", "number"), key=["digest"])

    def get(self, digest: AdapterDigest) -> AdapterVersion:
        found = self.find(digest)
        if found is None:
            raise NotFound(kind="adapter version", name=digest)
        return found

    def find(self, digest: AdapterDigest) -> AdapterVersion | None:
        t = tables.versions
        body = self.transaction.run(select(t.c.body).where(t.c.digest == digest)).scalar()
        return None if body is None else record_of(AdapterVersion, body)

    def of_task(self, task: TaskName) -> tuple[AdapterVersion, ...]:
        t = tables.versions
        bodies = self.transaction.run(select(t.c.body).where(t.c.task == task).order_by(t.c.number)).scalars()
        return tuple(record_of(AdapterVersion, body) for body in bodies)

    def all(self) -> tuple[AdapterVersion, ...]:
        t = tables.versions
        return tuple(
            record_of(AdapterVersion, body) for body in self.transaction.run(select(t.c.body).order_by(t.c.task, t.c.number)).scalars()
        )


class SqlAssignments(Repository):
    """See ``ports.Assignments``."""

    def get(self, task: TaskName) -> Assignment | None:
        t = tables.assignments
        body = self.transaction.run(select(t.c.body).where(t.c.task == task)).scalar()
        return None if body is None else record_of(Assignment, body)

    def all(self) -> Mapping[str, Assignment]:
        t = tables.assignments
        rows = self.transaction.run(select(t.c.task, t.c.body).order_by(t.c.task))
        return {task: record_of(Assignment, body) for task, body in rows}

    def next_generation(self) -> int:
        self.transaction.lock()
        given = (tables.generations.c.given, tables.assignments.c.generation, tables.routes.c.generation)
        highest = (self.transaction.run(select(func.max(column))).scalar() for column in given)
        generation = max(value or 0 for value in highest) + 1
        self.transaction.upsert(tables.generations, {"id": 1, "given": generation}, key=["id"])
        return generation

    def put(self, assignment: Assignment, *, expected_generation: int | None) -> None:
        self.transaction.lock()
        t = tables.assignments
        actual = self.transaction.run(select(t.c.generation).where(t.c.task == assignment.task)).scalar()
        if actual != expected_generation:
            raise StaleGeneration(task=assignment.task, actual=actual, expected=expected_generation)
        if self.transaction.run(select(t.c.task).where(t.c.generation == assignment.generation)).first() is not None:
            raise Conflict(problem=f"Generation {assignment.generation} was given already.")
        self.transaction.upsert(t, row_of(assignment, "task", "generation", "champion", "changed_at"), key=["task"])

    def mark_stuck(self, task: TaskName, generation: int, reason: str | None) -> None:
        self.transaction.lock()
        stored = self.get(task)
        if stored is not None and stored.generation == generation and stored.stuck_reason != reason:
            t = tables.assignments
            body = body_of(replace(stored, stuck_reason=reason))
            self.transaction.run(update(t).where(t.c.task == task, t.c.generation == generation).values(body=body))

    def publish(self, route: Route) -> None:
        self.transaction.lock()
        t = tables.routes
        stored = self.transaction.run(select(t.c.generation).where(t.c.task == route.task)).scalar()
        if stored is None or stored <= route.generation:
            self.transaction.upsert(t, row_of(route, "task", "generation"), key=["task"])

    def table(self) -> RoutingTable:
        t = tables.routes
        rows = self.transaction.run(select(t.c.task, t.c.body).order_by(t.c.task))
        routes = {task: record_of(Route, body) for task, body in rows}
        return RoutingTable(generation=max((r.generation for r in routes.values()), default=0), routes=routes)


class SqlReplicas(Repository):
    """See ``ports.Replicas``."""

    def report(self, report: ReplicaReport) -> None:
        self.transaction.upsert(tables.replicas, row_of(report, "replica_id", "reported_at"), key=["replica_id"])

    def live(self, since: datetime) -> tuple[ReplicaReport, ...]:
        t = tables.replicas
        bodies = self.transaction.run(select(t.c.body).where(t.c.reported_at >= instant(since))).scalars()
        return tuple(sorted((record_of(ReplicaReport, body) for body in bodies), key=lambda r: r.replica_id))


class SqlLedger(Repository):
    """See ``ports.Ledger``."""

    def append(self, *, at: datetime, kind: str, task: str, actor: str, body: Mapping[str, object]) -> LedgerEntry:
        self.transaction.lock()
        t = tables.ledger
        newest = self.transaction.run(select(t).order_by(t.c.seq.desc()).limit(1)).mappings().first()
        entry = chain(None if newest is None else entry_of(newest), at=at, kind=kind, task=task, actor=actor, body=body)
        self.transaction.run(t.insert().values(ledger_row(entry)))
        return entry

    def entries(self, *, after: int = 0, limit: int = 1_000) -> tuple[LedgerEntry, ...]:
        t = tables.ledger
        rows = self.transaction.run(select(t).where(t.c.seq > after).order_by(t.c.seq).limit(limit)).mappings()
        return tuple(entry_of(row) for row in rows)

    def count(self) -> int:
        return int(self.transaction.run(select(func.count()).select_from(tables.ledger)).scalar_one())


class SqlKeys(Repository):
    """See ``ports.Keys``. A name is never used twice, so that the ledger's actors stay clear."""

    def add(self, *, name: str, key_hash: str, created_at: datetime) -> None:
        row = {"name": name, "key_hash": key_hash, "created_at": instant(created_at), "revoked": False}
        self.transaction.lock()
        t = tables.keys
        if self.transaction.run(select(t.c.name).where((t.c.name == name) | (t.c.key_hash == key_hash))).first() is not None:
            raise AlreadyExists(kind="key", name=name)
        self.transaction.run(t.insert().values(row))

    def revoke(self, name: str) -> None:
        self.transaction.lock()
        t = tables.keys
        if self.transaction.run(select(t.c.name).where(t.c.name == name)).first() is None:
            raise NotFound(kind="key", name=name)
        self.transaction.run(update(t).where(t.c.name == name).values(revoked=True))

    def valid(self) -> Mapping[str, str]:
        t = tables.keys
        rows = self.transaction.run(select(t.c.key_hash, t.c.name).where(t.c.revoked.is_(False)).order_by(t.c.name))
        return {row.key_hash: row.name for row in rows}
