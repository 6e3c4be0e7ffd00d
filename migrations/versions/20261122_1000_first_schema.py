"""first schema

Revision ID: 0001
Revises:
Create Date: 2026-11-22 10:00:00+00:00
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SEQ = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT, NAME, ID, DIGEST, WORD = sa.String(32), sa.String(63), sa.String(200), sa.String(80), sa.String(16)
UNRESOLVED = sa.text("state IN ('open', 'acknowledged')")

RECORDS: dict[str, dict[str, sa.String]] = {
    "contracts": {"task": NAME, "digest": DIGEST, "put_at": INSTANT},
    "reports": {"report_id": ID, "task": NAME, "created_at": INSTANT},
    "alerts": {"alert_id": ID, "task": NAME, "fingerprint": ID, "state": WORD, "opened_at": INSTANT},
    "snapshots": {"digest": DIGEST, "task": NAME, "created_at": INSTANT},
    "verdicts": {"verdict_id": ID, "task": NAME, "candidate": DIGEST, "outcome": WORD, "judged_at": INSTANT},
}
UNIQUE = {"reports": "report_id", "alerts": "alert_id", "snapshots": "digest", "verdicts": "verdict_id"}
INDICES = {
    "contracts": ("ix_contracts_task", ["task", "seq"]),
    "reports": ("ix_reports_task", ["task", "created_at", "seq"]),
    "alerts": ("ix_alerts_task", ["task", "opened_at", "seq"]),
    "snapshots": ("ix_snapshots_task", ["task", "created_at", "seq"]),
    "verdicts": ("ix_verdicts_candidate", ["candidate", "judged_at", "seq"]),
}
ALL = (
    "labels", "captures", "keys", "ledger", "promotions", "retrainings", *RECORDS, "monitor_sets", "replicas", "routes",
    "assignments", "generations", "versions",
)  # fmt: skip


def upgrade() -> None:
    """Go to this revision."""
    _who_answers()
    _records()
    _retrainings()
    _promotions()
    _ledger_and_keys()
    _captures()
    _labels()


def downgrade() -> None:
    """Go back to the empty database."""
    for table in ALL:
        op.drop_table(table)


def _col(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _counted(name: str, *parts: sa.Column[Any] | sa.UniqueConstraint | sa.ForeignKeyConstraint) -> None:
    op.create_table(name, _col("seq", SEQ), *parts, sa.PrimaryKeyConstraint("seq", name=f"pk_{name}"), sqlite_autoincrement=True)


def _keyed(name: str, key: list[str], *parts: sa.Column[Any] | sa.UniqueConstraint) -> None:
    op.create_table(name, *parts, _col("body", sa.Text()), sa.PrimaryKeyConstraint(*key, name=f"pk_{name}"))


def _who_answers() -> None:
    _counted(
        "versions",
        _col("digest", DIGEST),
        _col("task", NAME),
        _col("number", sa.Integer()),
        _col("body", sa.Text()),
        sa.UniqueConstraint("digest", name="uq_versions_digest"),
        sa.UniqueConstraint("task", "number", name="uq_versions_task_number"),
    )
    op.create_table(
        "generations",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        _col("given", SEQ),
        sa.PrimaryKeyConstraint("id", name="pk_generations"),
    )
    unique = sa.UniqueConstraint("generation", name="uq_assignments_generation")
    champion, changed_at = _col("champion", DIGEST), _col("changed_at", INSTANT)
    _keyed("assignments", ["task"], _col("task", NAME), _col("generation", SEQ), champion, changed_at, unique)
    _keyed("routes", ["task"], _col("task", NAME), _col("generation", SEQ))
    _keyed("replicas", ["replica_id"], _col("replica_id", ID), _col("reported_at", INSTANT))
    op.create_index("ix_replicas_reported_at", "replicas", ["reported_at"])
    _keyed("monitor_sets", ["task", "digest"], _col("task", NAME), _col("digest", DIGEST), _col("version", SEQ))


def _records() -> None:
    for name, columns in RECORDS.items():
        parts = [_col(column, kind) for column, kind in columns.items()]
        unique = [sa.UniqueConstraint(UNIQUE[name], name=f"uq_{name}_{UNIQUE[name]}")] if name in UNIQUE else []
        _counted(name, *parts, _col("body", sa.Text()), *unique)
        index, over = INDICES[name]
        op.create_index(index, name, over)
    op.create_index(
        "uq_alerts_unresolved_fingerprint",
        "alerts",
        ["fingerprint"],
        unique=True,
        sqlite_where=UNRESOLVED,
        postgresql_where=UNRESOLVED,
    )


def _retrainings() -> None:
    _counted(
        "retrainings",
        _col("retraining_id", ID),
        _col("task", NAME),
        _col("state", WORD),
        _col("requested_at", INSTANT),
        _col("due_at", INSTANT),
        sa.Column("lease_until", INSTANT, nullable=True),
        _col("fence", SEQ),
        _col("body", sa.Text()),
        sa.UniqueConstraint("retraining_id", name="uq_retrainings_retraining_id"),
    )
    op.create_index("ix_retrainings_task", "retrainings", ["task", "requested_at", "seq"])
    op.create_index("ix_retrainings_due", "retrainings", ["state", "due_at"])


def _promotions() -> None:
    _counted(
        "promotions",
        _col("promotion_id", ID),
        _col("task", NAME),
        _col("digest", DIGEST),
        _col("generation", SEQ),
        _col("state", WORD),
        _col("created_at", INSTANT),
        _col("body", sa.Text()),
        sa.UniqueConstraint("promotion_id", name="uq_promotions_promotion_id"),
    )
    op.create_index("ix_promotions_task", "promotions", ["task", "created_at", "seq"])


def _ledger_and_keys() -> None:
    op.create_table(
        "ledger",
        sa.Column("seq", SEQ, autoincrement=False, nullable=False),
        _col("at", INSTANT),
        _col("kind", sa.String(64)),
        _col("task", NAME),
        _col("actor", sa.Text()),
        _col("body", sa.Text()),
        _col("previous_hash", DIGEST),
        _col("hash", DIGEST),
        sa.PrimaryKeyConstraint("seq", name="pk_ledger"),
        sa.UniqueConstraint("hash", name="uq_ledger_hash"),
    )
    op.create_table(
        "keys",
        _col("name", sa.Text()),
        _col("key_hash", DIGEST),
        _col("created_at", INSTANT),
        _col("revoked", sa.Boolean()),
        sa.PrimaryKeyConstraint("name", name="pk_keys"),
        sa.UniqueConstraint("key_hash", name="uq_keys_key_hash"),
    )


def _captures() -> None:
    _counted(
        "captures",
        _col("capture_id", sa.Text()),
        _col("task", NAME),
        _col("text", sa.Text()),
        _col("label", sa.Text()),
        _col("confidence", sa.Float(53)),
        _col("adapter_digest", DIGEST),
        _col("generation", SEQ),
        _col("route", WORD),
        _col("captured_at", INSTANT),
        _col("latency_ms", sa.Float(53)),
        _col("embedding", sa.LargeBinary()),
        _col("slices", sa.Text()),
        sa.UniqueConstraint("capture_id", name="uq_captures_capture_id"),
    )
    op.create_index("ix_captures_task", "captures", ["task", "seq"])


def _labels() -> None:
    _counted(
        "labels",
        _col("capture_id", sa.Text()),
        _col("capture_seq", SEQ),
        _col("task", NAME),
        _col("value", sa.Text()),
        _col("source", sa.Text()),
        _col("labelled_at", INSTANT),
        sa.ForeignKeyConstraint(["capture_id"], ["captures.capture_id"], name="fk_labels_capture_id"),
        sa.UniqueConstraint("capture_id", "source", "value", name="uq_labels_capture_id_source_value"),
    )
    op.create_index("ix_labels_task", "labels", ["task", "seq"])
    op.create_index("ix_labels_task_capture", "labels", ["task", "capture_seq"])
