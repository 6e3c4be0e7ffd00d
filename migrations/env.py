"""How Alembic reaches the database.

Holdfast itself hands over an open connection (``SqlDatabase.migrate``), in whose transaction everything happens. From the
command line (``alembic upgrade head``) the database of the settings is used, through the same engine and the same lock.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from holdfast.backends.sql.database import SqlDatabase
from holdfast.backends.sql.tables import metadata
from holdfast.settings import read_settings


def run_in(connection: Connection) -> None:
    """Run the asked-for migrations in the transaction of ``connection``."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transactional_ddl=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


def run() -> None:
    """Use the connection that was handed over, or open one."""
    if context.is_offline_mode():
        raise SystemExit("Migrations run on a live database only; leave out --sql.")
    given = context.config.attributes.get("connection")
    if given is not None:
        run_in(given)
        return
    with SqlDatabase(read_settings().database).migrating() as connection:
        run_in(connection)


run()
