"""What is asked of the log while requests are served never reads through all captures of a task (SQLite's own account of it)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from holdfast.backends.sql import SqlDatabase
from holdfast.domain.ids import CaptureId
from holdfast.ports import CaptureLog
from holdfast.testing.record_builders import TASK, a_capture, a_label

IDS = [CaptureId(f"c-{n:06d}") for n in range(1, 501)]
ASKED: dict[str, Callable[[CaptureLog], object]] = {
    "after": lambda log: log.after(TASK, 5, 100),
    "labelled after": lambda log: log.labelled_after(TASK, 5, 100),
    "labelled since": lambda log: log.labelled_since(TASK, 10),
    "newest": lambda log: log.newest(TASK, 10),
    "texts": lambda log: log.texts(TASK, IDS),
    "tasks of": lambda log: log.tasks_of(IDS),
    "last seq": lambda log: log.last_seq(TASK),
}
BOUNDED = ("seq>", "seq=", "rowid=", "capture_id=")


@pytest.mark.parametrize("name", ASKED)
def test_every_step_is_a_search_by_a_bound_or_walks_an_index_up_to_a_limit(name: str, tmp_path: Path) -> None:
    database = SqlDatabase(f"sqlite:///{tmp_path / 'h.db'}")
    database.migrate()
    database.log().append([a_capture(n) for n in range(1, 101)])
    database.log().label([a_label(n) for n in range(1, 101)])
    said: list[tuple[str, Any]] = []
    event.listen(
        database.engine, "before_cursor_execute", lambda _c, _cursor, statement, parameters, *_: said.append((statement, parameters))
    )
    ASKED[name](database.log())
    with database.engine.connect() as connection:
        asked = [one for one in said if one[0].startswith("SELECT")]
        steps = [(s, row[3]) for s, p in asked for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {s}", p).all()]
    database.dispose()
    assert steps
    for statement, step in steps:
        if step.startswith(("SCAN", "SEARCH")):
            limited = "LIMIT" in statement or "max(" in statement
            assert step.startswith("SEARCH"), step
            assert limited or any(bound in step for bound in BOUNDED), step
