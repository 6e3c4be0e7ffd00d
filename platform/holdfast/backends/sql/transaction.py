"""One transaction: where statements run, where errors are translated, where writers wait for one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Executable, Table, func, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from holdfast.backends.sql.failures import translated

Row = Mapping[str, Any]
WRITERS = 0x686F6C64
"""Key of PostgreSQL's advisory lock for every writing transaction (`hold` in ASCII)."""


class Transaction:
    """Begins at its first statement. On SQLite it begins ``IMMEDIATE`` unless it only reads, so no reader turns writer midway
    (which SQLite answers with `locked` at once, whatever the time-out). On PostgreSQL the first write takes one advisory lock
    until the end: what is read after that is the newest, so rules may be checked by reading, and the order of sequence numbers
    is the order of commits, which whoever reads on from a number relies on.
    """

    def __init__(self, engine: Engine, *, reading: bool = False) -> None:
        self._place = f"the database {engine.url.render_as_string(hide_password=True)}"
        with translated(self._place):
            self._connection: Connection = engine.connect().execution_options(reading=reading)
        self._postgresql = engine.dialect.name == "postgresql"
        self._writing = False

    def run(self, statement: Executable, rows: Sequence[Row] | None = None) -> CursorResult[*tuple[Any, ...]]:
        """Execute one statement, once or for many rows."""
        with translated(self._place):
            if rows is None:
                return self._connection.execute(statement)
            return self._connection.execute(statement, list(rows))

    def lock(self) -> None:
        """Wait until no other transaction writes. Call it before reading what decides a write."""
        if self._postgresql and not self._writing:
            self.run(select(func.pg_advisory_xact_lock(WRITERS)))
        self._writing = True

    def upsert(self, table: Table, row: Row, *, key: Sequence[str]) -> None:
        """Insert, or replace every other column of the row with this key."""
        self.lock()
        statement = self._insert(table).values(**row)
        changed = {name: statement.excluded[name] for name in row if name not in key}
        self.run(statement.on_conflict_do_update(index_elements=list(key), set_=changed))

    def add_new(self, table: Table, rows: Sequence[Row], *, key: Sequence[str]) -> int:
        """Insert the rows whose key is new; their number."""
        self.lock()
        statement = self._insert(table).on_conflict_do_nothing(index_elements=list(key))
        return self.run(statement.execution_options(preserve_rowcount=True), rows).rowcount if rows else 0

    def commit(self) -> None:
        """Make it durable; a later statement begins the next transaction."""
        with translated(self._place):
            self._connection.commit()
        self._writing = False

    def close(self) -> None:
        """Undo what was not committed and give the connection back."""
        with translated(self._place):
            self._connection.close()

    def _insert(self, table: Table) -> Any:
        return postgresql_insert(table) if self._postgresql else sqlite_insert(table)
