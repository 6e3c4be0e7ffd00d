"""Trainings as jobs of a real Ray: a killed one goes on, whoever watches may come and go, and a new Ray changes nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.backends.ray_fleet import token_path
from holdfast.backends.ray_training import JobsApi, RayTrainer
from holdfast.domain.datasets import SnapshotRow
from holdfast.domain.records import to_plain
from holdfast.domain.retraining import TrainingPlan
from holdfast.domain.tasks import LoraSpec
from holdfast.errors import PartUnavailable
from holdfast.testing.record_builders import a_digest, a_plan, a_snapshot_row
from holdfast.testing.tiny_model import make_tiny_model

from .stack import Stack, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
Make = Callable[[], RayTrainer]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("home")) as stack:
        stack.start_ray()
        jobs = jobs_of(stack)
        wait_for(lambda: answers(jobs), "the Jobs API answers")
        yield stack


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def make_trainer(stack: Stack, base: tuple[str, str], tmp_path: Path) -> Make:
    """Every call gives a new trainer, as in a new process: it holds no state."""
    snapshot = tmp_path / "snapshot.parquet"
    rows: list[SnapshotRow] = [a_snapshot_row(number) for number in range(300)]
    pq.write_table(pa.Table.from_pylist([to_plain(row) for row in rows]), snapshot)
    return lambda: RayTrainer(
        jobs=jobs_of(stack), work_folder=stack.settings.folder / "work", cache_folder=stack.settings.folder / "cache",
        snapshot_path=lambda digest: snapshot, adapter_folder=lambda digest: tmp_path / digest, base_paths={"tiny": base[0]}, threads=1,
    )  # fmt: skip


def jobs_of(stack: Stack) -> JobsApi:
    return JobsApi(f"http://127.0.0.1:{stack.settings.ports.ray_dashboard}", token_path(stack.settings))


def answers(jobs: JobsApi) -> bool:
    """Whether a job can be started: the first one waits for an agent that starts after the head."""
    try:
        jobs.submit("hf-warm-a1", "true", {})
        return True
    except PartUnavailable:
        return False


def plan_of(base: tuple[str, str], key: str, epoch_count: int) -> TrainingPlan:
    lora = LoraSpec(rank=2, last_layers=1, epoch_count=epoch_count, batch_rows=16)
    return a_plan(key=key, base="tiny", base_digest=f"sha256:{base[1]}", max_tokens=16, lora=lora, snapshot_digest=a_digest("rows"))


def trainings(stack: Stack, key: str) -> list[psutil.Process]:
    """The processes that train under a key: the interpreter, not a shell around it."""
    folder, found = str(stack.settings.folder / "work" / key), []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if line[-1:] == [folder] and "holdfast.backends.lora.job" in line:
            found.append(process)
    return found


def test_a_training_runs_to_its_end_and_asking_twice_is_asking_once(stack: Stack, base: tuple[str, str], make_trainer: Make) -> None:
    plan = plan_of(base, "trn_whole", 1)
    assert make_trainer().progress(plan.key).state == "absent"
    make_trainer().start(plan)
    make_trainer().start(plan)
    wait_for(lambda: make_trainer().progress(plan.key).state == "done", "the training ends", 240)
    result = make_trainer().result(plan.key)
    assert [rung.rung for rung in result.rungs] == ["head", "lora"]
    assert all(Path(rung.folder).is_dir() for rung in result.rungs)
    make_trainer().start(plan)
    assert jobs_of(stack).status("hf-trn_whole-a2") is None


def test_kill_9_of_the_training_is_seen_and_the_next_start_finishes_it(stack: Stack, base: tuple[str, str], make_trainer: Make) -> None:
    plan = plan_of(base, "trn_killed", 100)
    make_trainer().start(plan)
    wait_for(lambda: bool(trainings(stack, plan.key)), "the training process runs", 120)
    (victim,) = trainings(stack, plan.key)
    os.kill(victim.pid, signal.SIGKILL)
    wait_for(lambda: make_trainer().progress(plan.key).state != "running", "the death is seen", 120)
    assert make_trainer().progress(plan.key).state == "failed"
    assert "without a result" in make_trainer().progress(plan.key).message
    make_trainer().start(plan)
    wait_for(lambda: make_trainer().progress(plan.key).state == "done", "the training ends", 240)
    assert jobs_of(stack).status("hf-trn_killed-a2") in ("RUNNING", "SUCCEEDED")  # Ray looks at its children once a second


def test_a_cancelled_training_ends_and_leaves_no_process(stack: Stack, base: tuple[str, str], make_trainer: Make) -> None:
    plan = plan_of(base, "trn_cancelled", 100)
    make_trainer().start(plan)
    wait_for(lambda: bool(trainings(stack, plan.key)), "the training process runs", 120)
    make_trainer().cancel(plan.key)
    wait_for(lambda: not trainings(stack, plan.key), "the training process is gone", 60)
    wait_for(lambda: make_trainer().progress(plan.key).state == "failed", "it counts as failed", 60)


def test_a_training_outlives_nothing_of_a_killed_head_and_is_started_anew(stack: Stack, base: tuple[str, str], make_trainer: Make) -> None:
    plan = plan_of(base, "trn_headless", 60)
    make_trainer().start(plan)
    wait_for(lambda: bool(trainings(stack, plan.key)), "the training process runs", 120)
    stack.end("ray", signal.SIGKILL)
    assert make_trainer().progress(plan.key).state == "running"  # nobody knows, so nobody is alarmed
    wait_for(lambda: not trainings(stack, plan.key), "the training ends with its Ray", 60)
    stack.start_ray()
    wait_for(lambda: answers(jobs_of(stack)), "the Jobs API answers")
    wait_for(lambda: make_trainer().progress(plan.key).state == "absent", "the new Ray knows nothing of it")
    make_trainer().start(plan)
    wait_for(lambda: make_trainer().progress(plan.key).state == "done", "the training ends", 240)
