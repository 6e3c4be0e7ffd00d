"""Several processes read, decide and write at once: nobody hears `locked`, and each decision is made once."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.backends.sql import SqlDatabase
from holdfast.domain.ledger import verify
from holdfast.errors import StaleGeneration
from holdfast.testing.builders import TASK, a_capture, a_digest, a_retraining, an_assignment
from holdfast.testing.clock import NOON
from holdfast.testing.databases import new_url, server_url

WORKER_COUNT, STEP_COUNT = 4, 15

CLAIM = """
import sys
from datetime import timedelta
from dataclasses import replace
from holdfast.backends.sql import SqlDatabase
from holdfast.testing.clock import NOON
database, owner, now = SqlDatabase(sys.argv[1]), sys.argv[2], NOON + timedelta(days=1)
while True:
    with database.unit_of_work() as work:
        due = work.retrainings.due(now)
        if not due:
            break
        claimed = work.retrainings.claim(due[0].retraining_id, owner=owner, now=now, lease_s=30)
        if claimed is None:
            continue  # another worker was quicker between our look and our claim (PostgreSQL only)
        work.ledger.append(at=NOON, kind="claimed", task="t", actor=owner, body={"id": due[0].retraining_id})
        work.retrainings.save(replace(claimed, state="failed", ended_at=now))
        work.commit()
    with database.unit_of_work() as work:
        work.replicas.live(NOON)
    print(due[0].retraining_id, flush=True)
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgresql" and server_url() is None:
        pytest.skip("HOLDFAST_TEST_POSTGRES_URL names no server")
    with new_url(request.param, tmp_path) as url:
        database = SqlDatabase(url)
        database.migrate()
        database.dispose()
        yield url


def test_processes_that_claim_at_once_claim_each_retraining_once(url: str) -> None:
    database = SqlDatabase(url)
    wanted = [a_retraining(number) for number in range(WORKER_COUNT * STEP_COUNT)]
    with database.unit_of_work() as work:
        for row in wanted:
            work.retrainings.request(row)
        work.commit()
    command = [sys.executable, "-c", CLAIM, url]
    workers = [
        subprocess.Popen([*command, f"w{n}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for n in range(WORKER_COUNT)
    ]
    said = [worker.communicate(timeout=200) for worker in workers]
    assert [trouble for _, trouble in said] == [""] * WORKER_COUNT
    claimed = [line for out, _ in said for line in out.splitlines()]
    assert sorted(claimed) == sorted(row.retraining_id for row in wanted)
    with database.unit_of_work() as work:
        assert verify(work.ledger.entries(limit=10_000)) == len(wanted)
        assert {row.fence for row in work.retrainings.of_task(TASK)} == {1}
    database.dispose()


def test_of_promotions_at_once_one_wins_and_the_others_are_stale(url: str) -> None:
    database = SqlDatabase(url)
    with database.unit_of_work() as work:
        work.assignments.put(an_assignment(), expected_generation=None)
        work.commit()
    gate, outcomes = threading.Barrier(8), []

    def promote(number: int) -> None:
        with database.unit_of_work() as work:
            stored = work.assignments.all()[TASK]
        gate.wait()
        try:
            with database.unit_of_work() as work:
                generation = work.assignments.next_generation()
                wanted = an_assignment(champion=a_digest(str(number)), generation=generation)
                work.assignments.put(wanted, expected_generation=stored.generation)
                work.commit()
            outcomes.append("won")
        except StaleGeneration:
            outcomes.append("stale")

    threads = [threading.Thread(target=promote, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["stale"] * 7 + ["won"]
    with database.unit_of_work() as work:
        assert work.assignments.all()[TASK].generation == 2
    database.dispose()


def test_a_reader_that_goes_on_from_a_seq_misses_no_capture_of_concurrent_writers(url: str) -> None:
    database = SqlDatabase(url)
    log, done = database.log(), threading.Event()
    trouble: list[BaseException] = []

    def write(first: int) -> None:
        try:
            for number in range(first, first + 50):
                log.append([a_capture(number)])
        except BaseException as error:
            trouble.append(error)

    read: list[str] = []

    def follow() -> None:
        cursor = 0
        while True:
            last = done.is_set()
            rows = log.after(TASK, cursor)
            read.extend(row.capture_id for row in rows)
            cursor = rows[-1].seq if rows else cursor
            if last and not rows:
                return

    writers = [threading.Thread(target=write, args=(1_000 * n,)) for n in range(3)]
    reader = threading.Thread(target=follow)
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join(120)
    done.set()
    reader.join(60)
    assert trouble == []
    assert len(read) == len(set(read)) == 150
    database.dispose()


def test_a_reading_call_of_the_log_does_not_wait_for_a_writer(url: str) -> None:
    database = SqlDatabase(url)
    log = database.log()
    log.append([a_capture(1)])
    with database.unit_of_work() as work:
        work.ledger.append(at=NOON, kind="slow", task=TASK, actor="a", body={})
        assert log.count(TASK) == 1
    database.dispose()
