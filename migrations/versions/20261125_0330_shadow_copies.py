"""an index of the shadow copies, so that captures are counted without them and without reading their rows

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-25 03:30:00+00:00
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SHADOW = sa.text("route = 'shadow'")


def upgrade() -> None:
    """Go to this revision."""
    op.create_index("ix_captures_shadow", "captures", ["task"], sqlite_where=SHADOW, postgresql_where=SHADOW)


def downgrade() -> None:
    """Go back to the revision before."""
    op.drop_index("ix_captures_shadow", "captures")
