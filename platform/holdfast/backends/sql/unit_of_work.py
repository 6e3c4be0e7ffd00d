"""One transaction over all repositories."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from sqlalchemy import Engine

from holdfast.backends.sql.loop_repositories import (
    SqlAlerts,
    SqlMonitors,
    SqlPromotions,
    SqlReports,
    SqlRetrainings,
    SqlReviews,
    SqlSnapshots,
    SqlVerdicts,
)
from holdfast.backends.sql.repositories import SqlAssignments, SqlContracts, SqlKeys, SqlLedger, SqlReplicas, SqlVersions
from holdfast.backends.sql.transaction import Transaction
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
    Verdicts,
    Versions,
)


class SqlUnitOfWork:
    """See ``ports.UnitOfWork``. Begins at its first statement; use it once, in the thread that made it.

    On SQLite it holds the write lock from its first statement to its end, so a second unit of work, or a write to the capture
    log, inside its block would wait for itself.
    """

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

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Self:
        self._transaction = at = Transaction(self._engine)
        self.contracts, self.versions, self.assignments = SqlContracts(at), SqlVersions(at), SqlAssignments(at)
        self.replicas, self.monitors, self.reports = SqlReplicas(at), SqlMonitors(at), SqlReports(at)
        self.alerts, self.retrainings, self.snapshots = SqlAlerts(at), SqlRetrainings(at), SqlSnapshots(at)
        self.verdicts, self.promotions, self.reviews = SqlVerdicts(at), SqlPromotions(at), SqlReviews(at)
        self.ledger, self.keys = SqlLedger(at), SqlKeys(at)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._transaction.close()

    def commit(self) -> None:
        """Make everything so far durable."""
        self._transaction.commit()
