"""What each job rings and calls."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from holdfast.settings import Loop, Settings
from holdfast.testing.builders import TASK, a_contract, a_house, a_retraining, a_version, an_assignment
from holdfast.testing.clock import SteppedClock
from holdfast.testing.record_builders import a_capture
from holdfast.testing.twins import ListDoorbell, MemoryRegistry
from holdfast_jobs import housekeeping, monitoring, retraining, rollout
from holdfast_jobs.app import HEAVY, JOBS
from holdfast_jobs.bench import Bench
from holdfast_jobs.schedule import beat_schedule, steady_now, ticks


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(house=a_house(), settings=Settings(home=tmp_path))
    with bench.house.unit_of_work() as uow:
        uow.contracts.put(a_contract(), bench.house.clock())
        uow.commit()
    return bench


def rings(bench: Bench) -> list[tuple[str, ...]]:
    assert isinstance(bench.house.doorbell, ListDoorbell)
    return bench.house.doorbell.rings


def test_watch_all_rings_for_every_task(bench: Bench) -> None:
    monitoring.watch_all(bench)
    assert rings(bench) == [("holdfast.watch_task", TASK)]


def test_watching_a_task_without_a_champion_does_no_harm_and_asks_for_its_report(bench: Bench) -> None:
    monitoring.watch_task(bench, TASK)
    monitoring.report_task(bench, TASK)
    assert rings(bench) == [("holdfast.report_task", TASK)]


def test_the_sweep_rings_for_what_was_requested_and_never_rung(bench: Bench) -> None:
    asked = a_retraining()
    assert isinstance(bench.house.clock, SteppedClock)
    bench.house.clock.step(600)
    with bench.house.unit_of_work() as uow:
        uow.retrainings.request(asked)
        uow.commit()
    housekeeping.sweep(bench)
    assert rings(bench) == [("holdfast.advance_retraining", asked.retraining_id)]


def test_the_sweep_leaves_alone_what_another_worker_holds(bench: Bench) -> None:
    asked = a_retraining()
    assert isinstance(bench.house.clock, SteppedClock)
    now = bench.house.clock.step(600)
    with bench.house.unit_of_work() as uow:
        uow.retrainings.request(asked)
        uow.retrainings.claim(asked.retraining_id, owner="other", now=now, lease_s=30)
        uow.commit()
    housekeeping.sweep(bench)
    assert rings(bench) == []


def test_the_sweep_writes_how_long_the_oldest_due_retraining_waits(bench: Bench, tmp_path: Path) -> None:
    assert isinstance(bench.house.clock, SteppedClock)
    asked = a_retraining()
    with bench.house.unit_of_work() as uow:
        uow.retrainings.request(asked)
        uow.commit()
    bench.house.clock.step(660)
    housekeeping.sweep(bench)
    progress = json.loads((tmp_path / "run" / housekeeping.PROGRESS).read_text())
    assert datetime.fromisoformat(progress["at"]) == bench.house.clock()
    assert progress["oldest_due_s"] == (bench.house.clock() - asked.due_at).total_seconds()
    assert "holdfast_oldest_due_seconds 600.0" in (tmp_path / "run" / housekeeping.METRICS).read_text()


def test_advancing_takes_the_lease_in_the_name_of_this_worker(bench: Bench) -> None:
    assert isinstance(bench.house.clock, SteppedClock)
    bench.house.clock.step(600)
    with bench.house.unit_of_work() as uow:
        uow.retrainings.request(a_retraining())
        uow.commit()
    retraining.advance_retraining(bench, a_retraining().retraining_id)
    with bench.house.unit_of_work() as uow:
        assert uow.retrainings.get(a_retraining().retraining_id).fence == 1


def test_the_fleet_and_the_aliases_follow_the_assignment(bench: Bench) -> None:
    version = a_version(registry_version="3")
    with bench.house.unit_of_work() as uow:
        uow.versions.put(version)
        uow.assignments.put(an_assignment(champion=version.digest), expected_generation=None)
        uow.commit()
    rollout.reconcile_fleet(bench)
    rollout.mirror_registry(bench)
    assert isinstance(bench.house.registry, MemoryRegistry)
    assert bench.house.registry.aliases(TASK)["champion"] == "3"


def test_every_tick_and_every_heavy_job_is_a_job() -> None:
    assert {tick.job for tick in ticks(Loop())} | HEAVY <= set(JOBS)
    assert set(beat_schedule(Loop())) == {tick.job for tick in ticks(Loop())}


def test_the_table_in_the_readme_names_every_job_and_no_other() -> None:
    readme = (Path(__file__).parents[3] / "jobs" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(holdfast\.\w+)`", readme, flags=re.MULTILINE)) == set(JOBS)


def test_the_clock_of_the_ticks_only_goes_forward() -> None:
    instants = [steady_now() for _ in range(100)]
    assert instants == sorted(instants)


def test_the_sweep_counts_the_captures_that_the_log_lacks(bench: Bench, tmp_path: Path) -> None:
    bench.house.log.append([replace(a_capture(n), producer="gateway", number=n) for n in (1, 2, 6)])
    housekeeping.sweep(bench)
    assert "holdfast_captures_missing 3.0" in (tmp_path / "run" / housekeeping.METRICS).read_text()
