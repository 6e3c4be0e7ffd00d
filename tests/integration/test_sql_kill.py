"""What was acknowledged before a ``kill -9`` is there once afterwards; what was not committed is not there at all."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.backends.sql import SqlDatabase
from holdfast.domain.ledger import verify
from holdfast.testing.builders import TASK

KILLS = 3

APPEND = """
import sys
from holdfast.backends.sql import SqlDatabase
from holdfast.testing.builders import a_capture, a_label
database, first = SqlDatabase(sys.argv[1]), int(sys.argv[2])
log = database.log()
for number in range(first, first + 100_000, 5):
    rows = [a_capture(n) for n in range(number, number + 5)]
    log.append(rows)
    log.append(rows[:2])
    log.label([a_label(number)])
    print(number, flush=True)
"""

DECIDE = """
import sys
from holdfast.backends.sql import SqlDatabase
from holdfast.testing.builders import TASK, a_promotion, an_assignment
from holdfast.testing.clock import NOON
database = SqlDatabase(sys.argv[1])
while True:
    with database.unit_of_work() as work:
        stored = work.assignments.get(TASK)
        generation = work.assignments.next_generation()
        expected = None if stored is None else stored.generation
        work.assignments.put(an_assignment(generation=generation), expected_generation=expected)
        work.promotions.put(a_promotion(generation))
        work.ledger.append(at=NOON, kind="promotion.committed", task=TASK, actor="child", body={"generation": generation})
        work.commit()
    print(generation, flush=True)
"""


def acknowledged(code: str, *arguments: str, after: int) -> list[int]:
    """Run a child until it has acknowledged ``after`` times, kill it, and return everything it acknowledged."""
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    seen = [int(child.stdout.readline()) for _ in range(after)]
    child.send_signal(signal.SIGKILL)
    rest, trouble = child.communicate(timeout=60)
    assert trouble == ""
    return seen + [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def database(tmp_path: Path) -> SqlDatabase:
    made = SqlDatabase(f"sqlite:///{tmp_path / 'holdfast.db'}")
    made.migrate()
    return made


def test_acknowledged_captures_and_labels_survive_kill_9(database: SqlDatabase) -> None:
    random.seed(5)
    wanted, first = [], 0
    for _ in range(KILLS):
        seen = acknowledged(APPEND, database.engine.url.render_as_string(), str(first), after=random.randint(1, 60))
        wanted += [n for number in seen for n in range(number, number + 5)]
        first = seen[-1] + 1_000
    log = database.log()
    stored = [c.capture_id for c in log.after(TASK, 0, limit=100_000)]
    assert len(stored) == len(set(stored)) == log.count(TASK)
    assert {f"c-{n:06d}" for n in wanted} <= set(stored)
    assert {f"c-{n:06d}" for n in wanted[::5]} <= {r.label.capture_id for r in log.labelled_since(TASK, 0)}
    assert len(stored) - len(wanted) <= KILLS * 10  # at most one batch per kill was stored and not yet acknowledged
    database.dispose()


def test_a_committed_decision_is_whole_after_kill_9(database: SqlDatabase) -> None:
    random.seed(6)
    seen: list[int] = []
    for _ in range(KILLS):
        seen += acknowledged(DECIDE, database.engine.url.render_as_string(), after=random.randint(1, 40))
    with database.unit_of_work() as work:
        entries = work.ledger.entries(limit=100_000)
        promotions = work.promotions.of_task(TASK)
        assert verify(entries) == len(promotions)
        generations = sorted(p.generation for p in promotions)
        assert set(seen) <= set(generations)
        assert generations == list(range(1, len(generations) + 1))
        stored = work.assignments.get(TASK)
        assert stored is not None
        assert stored.generation == generations[-1]
    database.dispose()
