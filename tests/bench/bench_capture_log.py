"""How long the log of captures takes for what the loop and the console ask of it, and by which index it answers.

    python tests/bench/bench_capture_log.py [--rows 1000000] [--smoke] [--write]

A SQLite log in a temporary folder (about 1.1 GB a million rows) with two tasks, one of which has 90% of the captures, and a label for
every tenth capture. Rows are written by SQLite itself; the questions go through ``SqlCaptureLog``. Of each question the median of five,
and what SQLite's EXPLAIN QUERY PLAN says of each of its statements.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import Engine, event

from holdfast.backends.sql import SqlDatabase
from holdfast.domain.ids import CaptureId, TaskName

RESULTS = Path(__file__).parent / "results" / "capture_log.md"
BUSY, QUIET = TaskName("busy"), TaskName("quiet")
REPEATS, HIDDEN = 5, 384
FILL = """
INSERT INTO captures
  (capture_id, task, text, label, confidence, adapter_digest, generation, route, captured_at, latency_ms, embedding, slices)
WITH RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < ?)
SELECT 'c-' || i, CASE WHEN i % 10 THEN 'busy' ELSE 'quiet' END, 'where is my card, I ordered it two weeks ago, number ' || i, 'delivery',
  0.9, 'sha256:' || hex(zeroblob(32)), 1, CASE WHEN i % 50 THEN 'champion' ELSE 'shadow' END,
  strftime('%Y-%m-%dT%H:%M:%f', 1767225600 + i, 'unixepoch') || '000+00:00', 12.5, randomblob(?), '{"channel": "mail"}' FROM n
"""
LABEL = """
INSERT INTO labels (capture_id, capture_seq, task, value, source, labelled_at)
SELECT capture_id, seq, task, 'delivery', 'agents', captured_at FROM captures WHERE seq % 10 = 1
"""


def fill(engine: Engine, rows: int) -> None:
    """Write the captures and labels, 100,000 captures a transaction."""
    for first in range(1, rows + 1, 100_000):
        with engine.begin() as connection:
            connection.exec_driver_sql(FILL, (first, min(first + 99_999, rows), 2 * HIDDEN))
    with engine.begin() as connection:
        connection.exec_driver_sql(LABEL)


def questions(database: SqlDatabase) -> dict[str, Callable[[], object]]:
    """Who asks, and what."""
    log = database.log()
    last = log.last_seq(BUSY)
    ids = [CaptureId(f"c-{n}") for n in range(1, 501)]
    return {
        "watch: next 1,000 captures, from the middle": lambda: log.after(BUSY, last // 2, 1_000),
        "watch: next 1,000 labels": lambda: log.labelled_after(BUSY, last // 20, 1_000),
        "report: labels of the newest 5,000 captures": lambda: log.labelled_since(BUSY, last - 5_000),
        "console: newest 1,000": lambda: log.newest(BUSY, 1_000),
        "console: newest 1,000 of the quiet task": lambda: log.newest(QUIET, 1_000),
        "console: last seq": lambda: log.last_seq(BUSY),
        "console: number of captures": lambda: log.count(BUSY),
        "console: number of labels": lambda: log.label_count(BUSY),
        "feedback: tasks of 500 ids": lambda: log.tasks_of(ids),
        "feedback: texts of 500 ids": lambda: log.texts(BUSY, ids),
    }


def plans_of(engine: Engine, ask: Callable[[], object]) -> list[str]:
    """What SQLite says of each statement of one question."""
    said: list[tuple[str, Any]] = []

    def hear(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        said.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", hear)
    ask()
    event.remove(engine, "before_cursor_execute", hear)
    with engine.connect() as connection:
        explained = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all() for statement, parameters in said]
    return list(dict.fromkeys(str(step[3]) for steps in explained for step in steps))


def timed_ms(ask: Callable[[], object]) -> float:
    """Median of a few, after one that is not counted."""
    ask()
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - started) * 1e3)
    return median(taken)


def main(rows: int, write: bool) -> None:
    """Fill, ask, print."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        database = SqlDatabase(f"sqlite:///{path}")
        database.migrate()
        fill(database.engine, rows)
        lines = [f"{rows:,} captures, {rows // 10:,} labels, {path.stat().st_size / 1e6:,.0f} MB of SQLite.", ""]
        lines += ["| question | ms | plan |", "|---|---|---|"]
        for name, ask in questions(database).items():
            plan = "; ".join(plans_of(database.engine, ask))
            lines.append(f"| {name} | {timed_ms(ask):,.2f} | {plan} |")
        database.dispose()
    print("\n".join(lines))
    if write:
        command = f"`python tests/bench/bench_capture_log.py --rows {rows} --write`"
        RESULTS.write_text(f"# The log of captures\n\n{command}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--smoke", action="store_true", help="20,000 rows")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    given = parser.parse_args()
    main(20_000 if given.smoke else given.rows, given.write)
