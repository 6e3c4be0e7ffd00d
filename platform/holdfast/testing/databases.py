"""Fresh databases for tests: a SQLite file, or a schema of its own on a PostgreSQL server that the environment names."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, make_url, text


def server_url() -> str | None:
    """URL of a PostgreSQL server for tests (``postgresql+psycopg://…``), or None: those tests are then skipped by name."""
    return os.environ.get("HOLDFAST_TEST_POSTGRES_URL")  # noqa: TID251 - for tests only, not a setting of the product


@contextmanager
def new_url(kind: str, folder: Path) -> Iterator[str]:
    """URL of an empty database, gone after the block. ``kind`` is `sqlite` or `postgresql`."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'holdfast.db'}"
        return
    server = make_url(server_url() or "")
    name = f"holdfast_test_{uuid.uuid4().hex[:12]}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()
