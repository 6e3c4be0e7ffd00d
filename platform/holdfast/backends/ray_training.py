"""Trainings as Ray jobs, through the Jobs API over plain HTTP: whoever watches a training imports neither Ray nor torch.

The work folder of a key is the truth about its training; Ray only runs it. A training killed midway is submitted again under the
next submission id and goes on from its checkpoints, and a whole new Ray that knows no jobs changes nothing.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from holdfast.domain.ids import AdapterDigest, SnapshotDigest
from holdfast.domain.records import from_plain, to_plain
from holdfast.domain.retraining import TrainingPlan, TrainingProgress, TrainingResult, WorkOrder
from holdfast.errors import PartUnavailable, StorageRefused, TrainingFailed

UNDER_WAY = frozenset({"PENDING", "RUNNING"})
MAX_SUBMISSIONS = 64
REFUSED_STATUS = (400, 500)
"""What the Jobs API answers to a submission id that exists already; which one depends on who noticed."""


class JobsApi:
    """The few calls of Ray's Jobs API that are needed here."""

    def __init__(self, url: str, token_path: Path, timeout_s: float = 20.0) -> None:
        self._url, self._token_path, self._timeout_s = url.rstrip("/"), token_path, timeout_s
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the loopback needs no proxy

    def status(self, submission_id: str) -> str | None:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED; None when Ray knows no such job. Raises PartUnavailable."""
        code, answer = self._call("GET", f"/api/jobs/{submission_id}")
        if code == 404:
            return None
        if code != 200:
            raise PartUnavailable(part="ray jobs", reason=f"HTTP {code}: {answer}"[:300])
        return str(json.loads(answer)["status"])

    def submit(self, submission_id: str, entrypoint: str, env: Mapping[str, str]) -> None:
        """Start it; a no-op when that id was submitted before. Raises PartUnavailable."""
        body = {"entrypoint": entrypoint, "submission_id": submission_id, "runtime_env": {"env_vars": dict(env)}}
        code, answer = self._call("POST", "/api/jobs/", body)
        if code != 200 and not (code in REFUSED_STATUS and self.status(submission_id) is not None):
            raise PartUnavailable(part="ray jobs", reason=f"HTTP {code}: {answer}"[:300])

    def stop(self, submission_id: str) -> None:
        """Ask it to end. Raises PartUnavailable."""
        self._call("POST", f"/api/jobs/{submission_id}/stop", {})

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, str]:
        try:
            token = self._token_path.read_text(encoding="ascii").strip()
            data = None if body is None else json.dumps(body).encode()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            request = urllib.request.Request(self._url + path, data=data, method=method, headers=headers)
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(errors="replace")
        except OSError as error:
            raise PartUnavailable(part="ray jobs", reason=str(error)) from error


class RayTrainer:
    """A Trainer (see ports) whose trainings are Ray jobs. It holds no state: any process may go on with any key."""

    def __init__(
        self,
        *,
        jobs: JobsApi,
        work_folder: Path,
        cache_folder: Path,
        snapshot_path: Callable[[SnapshotDigest], Path],
        adapter_folder: Callable[[AdapterDigest], Path],
        base_paths: Mapping[str, str],
        threads: int,
    ) -> None:
        """``base_paths``: base name to its path as in the settings. ``threads``: torch threads of one training."""
        self._jobs, self._work_folder, self._cache_folder = jobs, work_folder, cache_folder
        self._snapshot_path, self._adapter_folder = snapshot_path, adapter_folder
        self._base_paths, self._threads = dict(base_paths), threads

    def start(self, plan: TrainingPlan) -> None:
        """See the port. After a failure it is submitted again; a stale ``failure.json`` is removed first."""
        folder = self._folder(plan.key)
        if (folder / "result.json").exists():
            return
        self._write_order(folder, plan)
        submission_id, status = self._newest(plan.key)
        if status in UNDER_WAY:
            return
        (folder / "failure.json").unlink(missing_ok=True)
        self._jobs.submit(submission_id if status is None else _next(submission_id), _entrypoint(folder), self._environment())

    def progress(self, key: str) -> TrainingProgress:
        """See the port."""
        folder = self._folder(key)
        if (folder / "result.json").exists():
            return TrainingProgress(state="done", share=1.0)
        if not (folder / "order.json").exists():
            return TrainingProgress(state="absent")
        try:
            submission_id, status = self._newest(key)
        except PartUnavailable as error:  # nobody knows; the next look will
            return TrainingProgress(state="running", message=error.message)
        if (folder / "result.json").exists():  # it may have been written since
            return TrainingProgress(state="done", share=1.0)
        if status in UNDER_WAY:
            return _read_progress(folder / "progress.json") or TrainingProgress(state="running", message="starting")
        failure = _read_progress(folder / "failure.json")
        if failure is not None:
            return failure
        if status is None:
            return TrainingProgress(state="absent", message="Ray was started anew and knows nothing of it")
        return TrainingProgress(state="failed", message=f"its process ended without a result (job {submission_id}: {status.lower()})")

    def result(self, key: str) -> TrainingResult:
        """See the port."""
        folder = self._folder(key)
        try:
            plain = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            return from_plain(TrainingResult, plain)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            failure = _read_progress(folder / "failure.json")
            reason = failure.message if failure else f"its result cannot be read: {error}"
            raise TrainingFailed(key=key, reason=reason, log=str(folder / "log.txt")) from error

    def cancel(self, key: str) -> None:
        """See the port. What was trained so far stays in the work folder."""
        submission_id, status = self._newest(key)
        if status in UNDER_WAY:
            self._jobs.stop(submission_id)

    def _newest(self, key: str) -> tuple[str, str | None]:
        """The newest submission of a key and how it stands; the first id and None when there is none."""
        found: tuple[str, str | None] = (_first(key), None)
        for _ in range(MAX_SUBMISSIONS):
            candidate = found[0] if found[1] is None else _next(found[0])
            status = self._jobs.status(candidate)
            if status is None:
                return found
            found = (candidate, status)
        return found

    def _write_order(self, folder: Path, plan: TrainingPlan) -> None:
        order = WorkOrder(
            plan=plan,
            snapshot_path=str(self._snapshot_path(plan.snapshot_digest)),
            champion_folder=None if plan.champion_digest is None else str(self._adapter_folder(plan.champion_digest)),
            base_path=self._base_paths[plan.base],
            cache_folder=str(self._cache_folder),
            threads=self._threads,
        )
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside = folder / f"order.json.{os.getpid()}"
            beside.write_text(json.dumps(to_plain(order), indent=1), encoding="utf-8")
            beside.replace(folder / "order.json")
        except OSError as error:
            raise StorageRefused(place=str(folder), reason=error.strerror or str(error)) from error

    def _environment(self) -> dict[str, str]:
        threads = str(self._threads)
        return {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

    def _folder(self, key: str) -> Path:
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", key) is None:
            raise PartUnavailable(part="trainer", reason=f"{key!r} is no training key")
        return self._work_folder / key


def _entrypoint(folder: Path) -> str:
    """Serving comes first on a busy machine, so training runs at lower priority; its output stays in the work folder."""
    command = shlex.join(["nice", "-n", "5", sys.executable, "-m", "holdfast.backends.lora.job", str(folder)])
    return f"exec {command} >> {shlex.quote(str(folder / 'log.txt'))} 2>&1"


def _first(key: str) -> str:
    return f"hf-{key}-a1"


def _next(submission_id: str) -> str:
    stem, _, number = submission_id.rpartition("-a")
    return f"{stem}-a{int(number) + 1}"


def _read_progress(path: Path) -> TrainingProgress | None:
    """None when it is not there or half-written."""
    try:
        return from_plain(TrainingProgress, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError):
        return None
