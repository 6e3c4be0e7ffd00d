"""label requests: rows that people are asked to label, with their weights and answers

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-25 12:15:00+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")
OPEN = sa.text("state = 'open'")


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "reviews",
        sa.Column("seq", SEQ, nullable=False),
        sa.Column("request_id", sa.String(200), nullable=False),
        sa.Column("task", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("asked_at", sa.String(32), nullable=False),
        sa.Column("version", SEQ, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_reviews"),
        sa.UniqueConstraint("request_id", name="uq_reviews_request_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_reviews_task", "reviews", ["task", "asked_at", "seq"])
    op.create_index("uq_reviews_open_task", "reviews", ["task"], unique=True, sqlite_where=OPEN, postgresql_where=OPEN)


def downgrade() -> None:
    """Go back to the revision before."""
    op.drop_table("reviews")
