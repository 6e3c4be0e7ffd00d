"""The schema goes up, down and up again, and equals what the code believes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from holdfast.backends.sql import SqlDatabase
from holdfast.backends.sql.tables import metadata
from holdfast.errors import PartUnavailable
from holdfast.testing.databases import new_url, server_url

VERSIONS = Path(__file__).parents[2] / "migrations" / "versions"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgresql" and server_url() is None:
        pytest.skip("HOLDFAST_TEST_POSTGRES_URL names no server")
    with new_url(request.param, tmp_path) as url:
        yield url


def test_up_down_up_ends_at_the_newest_schema(url: str) -> None:
    database = SqlDatabase(url)
    assert not database.check_current()
    database.migrate()
    assert database.check_current()
    database.move_to("-base")
    assert set(inspect(database.engine).get_table_names()) == {"alembic_version"}
    database.migrate()
    assert database.check_current()
    database.dispose()


def test_migrating_twice_changes_nothing(url: str) -> None:
    database = SqlDatabase(url)
    database.migrate()
    database.migrate()
    assert database.check_current()
    database.dispose()


def test_the_migrated_schema_is_the_one_in_tables(url: str) -> None:
    database = SqlDatabase(url)
    database.migrate()
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    database.dispose()


def test_of_several_migrators_at_once_all_end_well(url: str) -> None:
    code = "import sys; from holdfast.backends.sql import SqlDatabase; SqlDatabase(sys.argv[1]).migrate()"
    racers = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE) for _ in range(4)]
    said = [racer.communicate(timeout=120)[1].decode() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0, 0], said
    database = SqlDatabase(url)
    assert database.check_current()
    database.dispose()


def test_a_missing_migrations_folder_is_one_clear_error(tmp_path: Path) -> None:
    database = SqlDatabase(f"sqlite:///{tmp_path / 'h.db'}", migrations=tmp_path / "nowhere")
    with pytest.raises(PartUnavailable, match="the migrations are not in"):
        database.migrate()
    database.dispose()


def test_versions_import_nothing_of_holdfast() -> None:
    for path in VERSIONS.glob("*.py"):
        names = [n for node in ast.walk(ast.parse(path.read_text())) for n in _imported(node)]
        assert not [n for n in names if n.startswith("holdfast")], path


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
