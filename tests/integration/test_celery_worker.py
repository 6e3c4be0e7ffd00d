"""The worker as a real process on the filesystem broker: killed in the middle, fed rubbish, stopped."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from holdfast.backends.celery_queue import CeleryDoorbell, purge_folder
from holdfast.domain.ids import RetrainingId
from holdfast.domain.retraining import Retraining
from holdfast.testing.builders import a_retraining

PROGRAM = Path(__file__).with_name("celery_worker_process.py")
_spec = importlib.util.spec_from_file_location("celery_worker_process", PROGRAM)
assert _spec is not None and _spec.loader is not None
worker_process = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(worker_process)

pytestmark = pytest.mark.stack


def eventually(true: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
    """Wait until something is so; a busy machine may need long."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@contextmanager
def a_worker(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker on a home, which has swept at least once."""
    progress = home / "run" / "worker.progress"
    progress.unlink(missing_ok=True)
    env = os.environ | {"HOLDFAST_HOME": str(home), "HOLDFAST_LOOP__ADVANCE_S": "0.3"}  # noqa: TID251 - the child's variables
    with (home / "worker.log").open("ab") as output:
        process = subprocess.Popen([sys.executable, str(PROGRAM)], env=env, stdout=output, stderr=output)
    try:
        eventually(lambda: progress.exists() or process.poll() is not None, "the first sweep")
        assert process.poll() is None, (home / "worker.log").read_text()[-3000:]
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    worker_process.open_house(tmp_path).migrate()
    return tmp_path


def ask(home: Path, number: int) -> Retraining:
    """A retraining that is requested and due, and that nobody rings for."""
    now = worker_process.fast_clock() - timedelta(seconds=1)
    asked = dataclasses.replace(a_retraining(number), requested_at=now, due_at=now)
    with worker_process.open_house(home).unit_of_work() as uow:
        stored: Retraining = uow.retrainings.request(asked)
        uow.commit()
    return stored


def state_of(home: Path, retraining_id: RetrainingId) -> str:
    with worker_process.open_house(home).unit_of_work() as uow:
        return str(uow.retrainings.get(retraining_id).state)


def steps(home: Path) -> list[str]:
    path = home / "run" / "steps"
    return path.read_text().splitlines() if path.exists() else []


def test_what_a_killed_worker_held_is_taken_up_by_the_next_under_a_higher_fence(home: Path) -> None:
    (home / "run" / "hang").touch()
    asked = ask(home, 1)
    with a_worker(home) as first:
        eventually(lambda: len(steps(home)) == 1, "the first step")
        first.send_signal(signal.SIGKILL)
        first.wait()
    (home / "run" / "hang").unlink()
    assert state_of(home, asked.retraining_id) == "requested"
    with a_worker(home):
        eventually(lambda: state_of(home, asked.retraining_id) == "refused", "the second worker ends it")
    assert steps(home) == [f"begun {asked.retraining_id} 1", f"begun {asked.retraining_id} 2"]


def test_many_retrainings_survive_kills_and_each_takes_effect_once(home: Path) -> None:
    asked = [ask(home, number) for number in range(20)]
    for _ in range(2):
        before = len(steps(home))
        with a_worker(home) as worker:
            eventually(lambda before=before: len(steps(home)) > before, "one more step")  # type: ignore[misc]
            worker.send_signal(signal.SIGKILL)
            worker.wait()
    with a_worker(home):
        eventually(lambda: all(state_of(home, r.retraining_id) == "refused" for r in asked), "all are ended")
    begun = [line.rsplit(" ", 1) for line in steps(home)]
    assert len({tuple(pair) for pair in begun}) == len(begun), "no fence was given twice"


def test_rubbish_in_the_broker_does_not_stop_the_worker(home: Path) -> None:
    with a_worker(home) as worker:
        rubbish = (b"", b"{", b"\xff\xfe", b"[]", b"7", b'{"properties": {}}', b'{"properties": 3, "body": "", "headers": {}}')
        for number, raw in enumerate(rubbish):
            (home / "broker" / f"{number}_rubbish.holdfast.msg").write_bytes(raw)
        eventually(lambda: not list((home / "broker").glob("*rubbish*")), "the rubbish is gone")
        asked = ask(home, 1)
        eventually(lambda: state_of(home, asked.retraining_id) == "refused", "the next retraining is done")
        assert worker.poll() is None


def test_a_worker_stops_cleanly_when_told_to_and_leaves_its_progress(home: Path) -> None:
    with a_worker(home) as worker:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert set(json.loads((home / "run" / "worker.progress").read_text())) == {"at", "due_count", "oldest_due_s", "owner"}
    assert "holdfast_jobs_total" in (home / "run" / "worker.prom").read_text()


def test_a_worker_has_no_child_process_that_a_kill_would_orphan(home: Path) -> None:
    with a_worker(home) as worker:
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
        assert children.read_text() == ""


def test_a_ring_is_one_private_file_and_nothing_is_left_after_a_purge(tmp_path: Path) -> None:
    CeleryDoorbell(tmp_path).ring("holdfast.sweep")
    assert stat.S_IMODE((tmp_path / "broker").stat().st_mode) == 0o700
    assert len(list((tmp_path / "broker").glob("*.msg"))) == 1
    (tmp_path / "broker" / ".half.draft").write_bytes(b"{")
    purge_folder(tmp_path)
    assert not [path for path in (tmp_path / "broker").rglob("*") if path.is_file()]


@pytest.mark.parametrize("url", [None, "redis://127.0.0.1:1/0", "nonsense://"], ids=["no folder", "no broker", "no such broker"])
def test_a_ring_that_cannot_be_sent_is_noted_and_never_raised(tmp_path: Path, url: str | None) -> None:
    (tmp_path / "file").touch()
    with capture_logs() as lines:
        CeleryDoorbell(tmp_path / "file", url).ring("holdfast.sweep")
    assert [line["event"] for line in lines] == ["doorbell.not_rung"]
