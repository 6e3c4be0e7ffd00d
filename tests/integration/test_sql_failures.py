"""A database that says no is named in the words of the house, and nothing is half-written."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from holdfast.backends.sql import SqlDatabase, database
from holdfast.errors import PartUnavailable, StorageRefused
from holdfast.testing.builders import TASK, a_capture, a_contract, a_label
from holdfast.testing.clock import NOON


def a_database(folder: Path) -> SqlDatabase:
    made = SqlDatabase(f"sqlite:///{folder / 'holdfast.db'}")
    made.migrate()
    return made


def with_pragma(engine: Engine, pragma: str) -> None:
    """Run a pragma on every connection from now on."""
    engine.dispose()
    event.listen(engine, "connect", lambda connection, _: connection.execute(f"PRAGMA {pragma}"))


def test_a_full_disk_refuses_all_of_a_call_and_takes_captures_again_when_space_returns(tmp_path: Path) -> None:
    made = a_database(tmp_path)
    made.log().append([a_capture(1)])
    with made.engine.connect() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
    with_pragma(made.engine, f"max_page_count={pages + 4}")
    rows = [a_capture(n, text="x" * 1_000) for n in range(2, 200)]
    with pytest.raises(StorageRefused, match="disk is full"):
        made.log().append(rows)
    assert made.log().count(TASK) == 1
    with_pragma(made.engine, "max_page_count=1000000")
    assert made.log().append(rows) == len(rows)
    made.dispose()


def test_a_full_disk_refuses_a_unit_of_work(tmp_path: Path) -> None:
    made = a_database(tmp_path)
    with_pragma(made.engine, "max_page_count=1")
    with pytest.raises(StorageRefused), made.unit_of_work() as work:
        work.contracts.put(a_contract(description="x" * 100_000), NOON)
        work.commit()
    with made.unit_of_work() as work:
        assert work.contracts.all() == ()
    made.dispose()


def test_a_read_only_database_refuses_writes(tmp_path: Path) -> None:
    a_database(tmp_path).dispose()
    made = SqlDatabase(f"sqlite:///file:{tmp_path / 'holdfast.db'}?mode=ro&uri=true")
    with pytest.raises(StorageRefused, match="readonly"):
        made.log().append([a_capture(1)])
    assert made.log().count(TASK) == 0
    made.dispose()


def test_a_file_that_cannot_be_opened_is_refused_storage(tmp_path: Path) -> None:
    made = SqlDatabase(f"sqlite:///{tmp_path / 'nowhere' / 'holdfast.db'}")
    for use in (made.migrate, lambda: made.log().count(TASK), made.check_current):
        with pytest.raises(StorageRefused, match="unable to open"):
            use()
    made.dispose()


def test_a_database_without_tables_says_how_to_mend_it(tmp_path: Path) -> None:
    made = SqlDatabase(f"sqlite:///{tmp_path / 'holdfast.db'}")
    with pytest.raises(PartUnavailable, match="which migrates"):
        made.log().count(TASK)
    with pytest.raises(PartUnavailable, match="which migrates"), made.unit_of_work() as work:
        work.contracts.all()
    made.dispose()


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "holdfast.db").write_bytes(b"these are not the pages of a database" * 100)
    made = SqlDatabase(f"sqlite:///{tmp_path / 'holdfast.db'}")
    with pytest.raises(PartUnavailable, match="not a database"):
        made.log().count(TASK)
    made.dispose()


def test_a_writer_that_holds_on_is_unavailable_and_not_a_hang(tmp_path: Path) -> None:
    made, other = a_database(tmp_path), SqlDatabase(f"sqlite:///{tmp_path / 'holdfast.db'}")
    with_pragma(made.engine, "busy_timeout=50")
    with other.unit_of_work() as work:
        work.contracts.put(a_contract(), NOON)
        with pytest.raises(PartUnavailable, match="locked"):
            made.log().append([a_capture(1)])
    assert made.log().append([a_capture(1)]) == 1
    made.dispose()
    other.dispose()


def test_an_error_never_repeats_the_text_of_a_request(tmp_path: Path) -> None:
    made = a_database(tmp_path)
    with_pragma(made.engine, "max_page_count=1")
    with pytest.raises(StorageRefused) as caught:
        made.log().append([a_capture(n, text="a secret " * 200) for n in range(50)])
    assert "secret" not in str(caught.value)
    made.dispose()


def test_a_server_that_is_gone_is_unavailable() -> None:
    pytest.importorskip("psycopg")
    made = SqlDatabase("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(PartUnavailable, match="database does not answer"):
        made.log().count(TASK)
    made.dispose()


def test_every_writing_transaction_begins_immediate_and_a_reading_one_does_not(tmp_path: Path) -> None:
    made = a_database(tmp_path)
    begun: list[str] = []
    made.dispose()
    event.listen(made.engine, "connect", lambda connection, _: connection.set_trace_callback(begun.append))
    log = made.log()
    log.append([a_capture(1)])
    log.label([a_label(1)])
    with made.unit_of_work() as work:
        work.contracts.all()
    assert [line for line in begun if line.startswith("BEGIN")] == ["BEGIN IMMEDIATE"] * 3
    begun.clear()
    log.count(TASK)
    log.labelled_since(TASK, 0)
    assert {line for line in begun if line.startswith("BEGIN")} == {"BEGIN DEFERRED"}
    made.dispose()


def test_connections_are_durable_and_keep_foreign_keys(tmp_path: Path) -> None:
    made = a_database(tmp_path)
    with made.engine.connect() as connection:
        found = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": int(database.BUSY_S * 1000)}
    made.dispose()
