"""How a job is run: never twice at once, and never to the worker's harm."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from holdfast.errors import PartUnavailable
from holdfast.settings import Settings
from holdfast.testing.builders import a_house
from holdfast_jobs.bench import Bench, perform


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(house=a_house(), settings=Settings(home=tmp_path))


def test_a_job_gets_the_bench_and_its_ids(bench: Bench) -> None:
    seen: list[tuple[Bench, str]] = []
    assert perform(bench, "j", lambda b, one: seen.append((b, one)), ("a",)) == "ok"
    assert seen == [(bench, "a")]


@pytest.mark.parametrize("error", [PartUnavailable(part="MLflow", reason="away"), ValueError("odd"), KeyError("x")])
def test_a_failing_job_says_so_in_one_line_and_the_next_ring_runs_it_again(bench: Bench, error: Exception) -> None:
    def body(_: Bench) -> None:
        raise error

    with capture_logs() as lines:
        assert [perform(bench, "j", body, ()), perform(bench, "j", body, ())] == ["failed", "failed"]
    assert [line["event"] for line in lines] == ["job.failed", "job.failed"]


def held(bench: Bench, ids: tuple[str, ...], *, alone: bool = False) -> tuple[threading.Thread, threading.Event]:
    """A job of kind `j` that runs until the event is set."""
    begun, let_go = threading.Event(), threading.Event()

    def body(_: Bench, *__: str) -> None:
        begun.set()
        let_go.wait(20)

    thread = threading.Thread(target=perform, args=(bench, "j", body, ids), kwargs={"one_at_a_time": alone})
    thread.start()
    assert begun.wait(20)
    return thread, let_go


@pytest.mark.parametrize(
    ("alone", "ids", "result"),
    [(False, ("a",), "skipped"), (False, ("b",), "ok"), (True, ("b",), "skipped")],
    ids=["the same ids are skipped", "other ids run beside it", "a heavy kind runs alone"],
)
def test_a_ring_for_what_still_runs_is_dropped(bench: Bench, alone: bool, ids: tuple[str, ...], result: str) -> None:
    thread, let_go = held(bench, ("a",), alone=alone)
    try:
        assert perform(bench, "j", lambda *_: None, ids, one_at_a_time=alone) == result
    finally:
        let_go.set()
        thread.join(20)
    assert perform(bench, "j", lambda *_: None, ids, one_at_a_time=alone) == "ok"


def test_no_two_benches_have_the_same_owner(bench: Bench) -> None:
    other = Bench(house=bench.house, settings=bench.settings)
    assert json.dumps(bench.owner) != json.dumps(other.owner)
