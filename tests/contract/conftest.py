"""The parts that a contract suite is run on: the twin, SQLite, and PostgreSQL where the environment names a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.backends.sql import SqlDatabase
from holdfast.testing.databases import new_url, server_url
from holdfast.testing.memory import MemoryDatabase

Database = MemoryDatabase | SqlDatabase


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "memory":
        yield MemoryDatabase()
        return
    if request.param == "postgresql" and server_url() is None:
        pytest.skip("HOLDFAST_TEST_POSTGRES_URL names no server")
    with new_url(request.param, tmp_path) as url:
        made = SqlDatabase(url)
        made.migrate()
        yield made
        made.dispose()
