"""The engine: how connections are opened, how transactions begin, how the schema is brought up to date."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection

from holdfast.backends.sql.capture_log import SqlCaptureLog
from holdfast.backends.sql.failures import translated
from holdfast.backends.sql.transaction import WRITERS
from holdfast.backends.sql.unit_of_work import SqlUnitOfWork
from holdfast.errors import PartUnavailable
from holdfast.ports import CaptureLog, UnitOfWork

BUSY_S = 10.0
"""How long a writer waits for another; a transaction takes milliseconds."""
MIGRATIONS = Path(__file__).parents[4] / "migrations"


class SqlDatabase:
    """One database by SQLAlchemy URL (``sqlite:///FILE`` or ``postgresql+psycopg://…``). Safe to share between threads."""

    def __init__(self, url: str, *, migrations: Path = MIGRATIONS) -> None:
        self.engine = make_engine(url)
        self._migrations = migrations
        self._place = f"the database {self.engine.url.render_as_string(hide_password=True)}"

    def unit_of_work(self) -> UnitOfWork:
        """A transaction that begins at its first statement."""
        return SqlUnitOfWork(self.engine)

    def log(self) -> CaptureLog:
        """The capture log."""
        return SqlCaptureLog(self.engine)

    def migrate(self) -> None:
        """Bring the schema to the newest revision, in one transaction; of two migrators at once one works and one waits.

        Raises:
            PartUnavailable: the migrations are not there, or the database does not answer or is locked for too long.
            StorageRefused: the disk is full or read-only.
        """
        self.move_to("head")

    def move_to(self, revision: str) -> None:
        """Upgrade to ``head`` or a revision, or downgrade to ``base`` or an older one (named ``-REVISION``, ``-base``)."""
        from alembic import command

        with self.migrating() as connection:
            config = self._alembic(connection)
            if revision.startswith("-"):
                command.downgrade(config, revision.removeprefix("-"))
            else:
                command.upgrade(config, revision)

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """A connection in a transaction that no other migrator or writer shares; committed at the end of the block."""
        with translated(self._place), self.engine.begin() as connection:
            if self.engine.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL lock_timeout = '10s'"))
                connection.execute(text(f"SELECT pg_advisory_xact_lock({WRITERS})"))
            yield connection

    def check_current(self) -> bool:
        """Whether the schema is at the newest revision. Raises PartUnavailable."""
        from alembic.migration import MigrationContext
        from alembic.script import ScriptDirectory

        with translated(self._place), self.engine.connect().execution_options(reading=True) as connection:
            heads = ScriptDirectory.from_config(self._alembic(connection)).get_heads()
            return set(MigrationContext.configure(connection).get_current_heads()) == set(heads)

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()

    def _alembic(self, connection: Connection) -> Any:
        from alembic.config import Config

        if not (self._migrations / "env.py").is_file():
            raise PartUnavailable(part="database", reason=f"the migrations are not in {self._migrations}; install from the source tree")
        config = Config()
        config.set_main_option("script_location", str(self._migrations).replace("%", "%%"))
        config.attributes["connection"] = connection
        return config


def make_engine(url: str) -> Engine:
    """An engine whose transactions begin as ``Transaction`` says."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True, pool_size=5, max_overflow=20)
    engine = create_engine(parsed, connect_args={"check_same_thread": False, "timeout": BUSY_S}, pool_size=5, max_overflow=20)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: DBAPIConnection, _record: object) -> None:
    # The driver must not begin transactions of its own: it would begin them deferred, before ours.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={int(BUSY_S * 1000)}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN DEFERRED" if reading else "BEGIN IMMEDIATE")
