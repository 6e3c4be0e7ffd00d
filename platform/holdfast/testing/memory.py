"""The database in memory: the same transactions, constraints and errors as the SQL one.

A unit of work holds the one write lock from its first line to its last (as ``BEGIN IMMEDIATE`` does on SQLite), works on a
copy, and puts the copy in place at ``commit``. Records are frozen, so copying the tables is enough.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from holdfast.errors import PartUnavailable
from holdfast.ports import (
    Alerts,
    Assignments,
    Contracts,
    Keys,
    Ledger,
    Monitors,
    Promotions,
    Replicas,
    Reports,
    Retrainings,
    Reviews,
    Snapshots,
    UnitOfWork,
    Verdicts,
    Versions,
)
from holdfast.testing.memory_log import MemoryCaptureLog
from holdfast.testing.memory_repositories import (
    MemoryAlerts,
    MemoryAssignments,
    MemoryContracts,
    MemoryKeys,
    MemoryLedger,
    MemoryMonitors,
    MemoryPromotions,
    MemoryReplicas,
    MemoryReports,
    MemoryRetrainings,
    MemorySnapshots,
    MemoryVerdicts,
    MemoryVersions,
    Tables,
)
from holdfast.testing.memory_reviews import MemoryReviews
from holdfast.testing.memory_stores import MemoryAdapterStore, MemorySnapshotStore
from holdfast.testing.write_lock import WriteLock

__all__ = ["MemoryAdapterStore", "MemoryCaptureLog", "MemoryDatabase", "MemorySnapshotStore", "MemoryUnitOfWork"]


class MemoryDatabase:
    """Twin of ``SqlDatabase``. One instance is one database; its log shares the write lock."""

    def __init__(self) -> None:
        self.tables = Tables()
        self.lock = WriteLock()
        self._log = MemoryCaptureLog(self.lock)
        self.down = False
        """Set it, and every unit of work raises PartUnavailable, as when the database server is gone."""

    def unit_of_work(self) -> UnitOfWork:
        """A transaction that has not begun."""
        return MemoryUnitOfWork(self)

    def log(self) -> MemoryCaptureLog:
        """The capture log of this database."""
        return self._log


class MemoryUnitOfWork:
    """One transaction on a MemoryDatabase."""

    contracts: Contracts
    versions: Versions
    assignments: Assignments
    replicas: Replicas
    monitors: Monitors
    reports: Reports
    alerts: Alerts
    retrainings: Retrainings
    snapshots: Snapshots
    verdicts: Verdicts
    promotions: Promotions
    reviews: Reviews
    ledger: Ledger
    keys: Keys

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    def __enter__(self) -> Self:
        if self._database.down:
            raise PartUnavailable(part="database", reason="it was taken down by the test")
        self._database.lock.acquire()
        self._bind(self._database.tables.copied())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._database.lock.release()

    def commit(self) -> None:
        """Put the copy in place; what follows in the block works on a fresh one."""
        self._database.tables = self._tables
        self._bind(self._tables.copied())

    def _bind(self, tables: Tables) -> None:
        self._tables = tables
        self.contracts, self.versions = MemoryContracts(tables), MemoryVersions(tables)
        self.assignments, self.replicas = MemoryAssignments(tables), MemoryReplicas(tables)
        self.monitors, self.reports, self.alerts = MemoryMonitors(tables), MemoryReports(tables), MemoryAlerts(tables)
        self.retrainings, self.snapshots = MemoryRetrainings(tables), MemorySnapshots(tables)
        self.verdicts, self.promotions = MemoryVerdicts(tables), MemoryPromotions(tables)
        self.reviews = MemoryReviews(tables)
        self.ledger, self.keys = MemoryLedger(tables), MemoryKeys(tables)
