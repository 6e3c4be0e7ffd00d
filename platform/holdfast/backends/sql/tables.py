"""The tables, as SQLAlchemy Core. What a migration makes must equal what stands here (tests/migrations).

Each table has the columns that queries and constraints need, and a ``body``: the whole record as canonical JSON, which is what
is read back. Instants are text in UTC with microseconds, so that they sort, compare alike on SQLite and PostgreSQL, and can be
read by a person. ``seq`` counts the order of first writing.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table, Text, text
from sqlalchemy.schema import UniqueConstraint

NAMING = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
}
OPEN = "state = 'open'"
UNRESOLVED = "state IN ('open', 'acknowledged')"

metadata = MetaData(naming_convention=NAMING)
Seq = BigInteger().with_variant(Integer, "sqlite")
Instant = String(32)
Name = String(63)
Id = String(200)
Digest = String(80)


def _counted(name: str, *columns: Column[str] | Column[int] | UniqueConstraint | Index) -> Table:
    """A table of records in the order of first writing."""
    return Table(
        name, metadata, Column("seq", Seq, primary_key=True), *columns, Column("body", Text, nullable=False), sqlite_autoincrement=True
    )


contracts = _counted(
    "contracts",
    Column("task", Name, nullable=False),
    Column("digest", Digest, nullable=False),
    Column("put_at", Instant, nullable=False),
    Index("ix_contracts_task", "task", "seq"),
)
"""Every contract a task ever had; the newest row counts."""

versions = _counted(
    "versions",
    Column("digest", Digest, nullable=False, unique=True),
    Column("task", Name, nullable=False),
    Column("number", Integer, nullable=False),
    UniqueConstraint("task", "number"),
)

generations = Table(
    "generations", metadata, Column("id", Integer, primary_key=True, autoincrement=False), Column("given", Seq, nullable=False)
)
"""One row: the highest generation that was ever given."""

assignments = Table(
    "assignments",
    metadata,
    Column("task", Name, primary_key=True),
    Column("generation", Seq, nullable=False, unique=True),
    Column("champion", Digest, nullable=False),
    Column("changed_at", Instant, nullable=False),
    Column("body", Text, nullable=False),
)
"""One champion per task, by primary key."""

routes = Table(
    "routes",
    metadata,
    Column("task", Name, primary_key=True),
    Column("generation", Seq, nullable=False),
    Column("body", Text, nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("replica_id", Id, primary_key=True),
    Column("reported_at", Instant, nullable=False, index=True),
    Column("body", Text, nullable=False),
)

monitor_sets = Table(
    "monitor_sets",
    metadata,
    Column("task", Name, primary_key=True),
    Column("digest", Digest, primary_key=True),
    Column("version", Seq, nullable=False),
    Column("body", Text, nullable=False),
)

reports = _counted(
    "reports",
    Column("report_id", Id, nullable=False, unique=True),
    Column("task", Name, nullable=False),
    Column("created_at", Instant, nullable=False),
    Index("ix_reports_task", "task", "created_at", "seq"),
)

alerts = _counted(
    "alerts",
    Column("alert_id", Id, nullable=False, unique=True),
    Column("task", Name, nullable=False),
    Column("fingerprint", Id, nullable=False),
    Column("state", String(16), nullable=False),
    Column("opened_at", Instant, nullable=False),
    Index("ix_alerts_task", "task", "opened_at", "seq"),
    Index(
        "uq_alerts_unresolved_fingerprint",
        "fingerprint",
        unique=True,
        sqlite_where=text(UNRESOLVED),
        postgresql_where=text(UNRESOLVED),
    ),
)

retrainings = _counted(
    "retrainings",
    Column("retraining_id", Id, nullable=False, unique=True),
    Column("task", Name, nullable=False),
    Column("state", String(16), nullable=False),
    Column("requested_at", Instant, nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("lease_until", Instant, nullable=True),
    Column("fence", Seq, nullable=False),
    Index("ix_retrainings_task", "task", "requested_at", "seq"),
    Index("ix_retrainings_due", "state", "due_at"),
)

snapshots = _counted(
    "snapshots",
    Column("digest", Digest, nullable=False, unique=True),
    Column("task", Name, nullable=False),
    Column("created_at", Instant, nullable=False),
    Index("ix_snapshots_task", "task", "created_at", "seq"),
)

verdicts = _counted(
    "verdicts",
    Column("verdict_id", Id, nullable=False, unique=True),
    Column("task", Name, nullable=False),
    Column("candidate", Digest, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("judged_at", Instant, nullable=False),
    Index("ix_verdicts_candidate", "candidate", "judged_at", "seq"),
)

promotions = _counted(
    "promotions",
    Column("promotion_id", Id, nullable=False, unique=True),
    Column("task", Name, nullable=False),
    Column("digest", Digest, nullable=False),
    Column("generation", Seq, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Instant, nullable=False),
    Index("ix_promotions_task", "task", "created_at", "seq"),
)

reviews = _counted(
    "reviews",
    Column("request_id", Id, nullable=False, unique=True),
    Column("task", Name, nullable=False),
    Column("state", String(16), nullable=False),
    Column("asked_at", Instant, nullable=False),
    Column("version", Seq, nullable=False),
    Index("ix_reviews_task", "task", "asked_at", "seq"),
    Index("uq_reviews_open_task", "task", unique=True, sqlite_where=text(OPEN), postgresql_where=text(OPEN)),
)
"""Label requests; one open request per task, by constraint."""

ledger = Table(
    "ledger",
    metadata,
    Column("seq", Seq, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("task", String(63), nullable=False),
    Column("actor", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("previous_hash", Digest, nullable=False),
    Column("hash", Digest, nullable=False, unique=True),
)

keys = Table(
    "keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("key_hash", Digest, nullable=False, unique=True),
    Column("created_at", Instant, nullable=False),
    Column("revoked", Boolean, nullable=False),
)

SHADOW = text("route = 'shadow'")

captures = Table(
    "captures",
    metadata,
    Column("seq", Seq, primary_key=True),
    Column("capture_id", Text, nullable=False, unique=True),
    Column("task", Name, nullable=False),
    Column("text", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("confidence", Float(53), nullable=False),
    Column("adapter_digest", Digest, nullable=False),
    Column("generation", Seq, nullable=False),
    Column("route", String(16), nullable=False),
    Column("captured_at", Instant, nullable=False),
    Column("latency_ms", Float(53), nullable=False),
    Column("embedding", LargeBinary, nullable=False),
    Column("slices", Text, nullable=False),
    Index("ix_captures_task", "task", "seq"),
    Index("ix_captures_shadow", "task", sqlite_where=SHADOW, postgresql_where=SHADOW),
    sqlite_autoincrement=True,
)
"""``embedding`` is [hidden] float16, little endian; ``slices`` is canonical JSON."""

producers = Table(
    "producers",
    metadata,
    Column("producer", String(200), primary_key=True),
    Column("last_at", Instant, nullable=False),
    Column("seen", Text, nullable=False),
)
"""``seen``: the ranges of numbers that came, as JSON; see ``domain.producers``."""

labels = Table(
    "labels",
    metadata,
    Column("seq", Seq, primary_key=True),
    Column("capture_id", Text, ForeignKey("captures.capture_id"), nullable=False),
    Column("capture_seq", Seq, nullable=False),
    Column("task", Name, nullable=False),
    Column("value", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("labelled_at", Instant, nullable=False),
    UniqueConstraint("capture_id", "source", "value"),
    Index("ix_labels_task", "task", "seq"),
    Index("ix_labels_task_capture", "task", "capture_seq"),
    sqlite_autoincrement=True,
)
"""``capture_seq`` is the capture's, so that `labelled_since` walks one index."""
