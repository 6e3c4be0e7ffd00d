"""producers of captures, with the numbers of theirs that came

Revision ID: 0004
Revises: 0003
Create Date: 2026-11-25 13:10:00+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "producers",
        sa.Column("producer", sa.String(200), nullable=False),
        sa.Column("last_at", sa.String(32), nullable=False),
        sa.Column("seen", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("producer", name="pk_producers"),
    )


def downgrade() -> None:
    """Go back to the revision before."""
    op.drop_table("producers")
