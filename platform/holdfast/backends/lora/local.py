"""Training in this process: the Trainer port for replays and tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from holdfast.backends.lora.engine import LoraEngine
from holdfast.backends.lora.files import write_json
from holdfast.backends.lora.orders import FAILURE, ORDER, RESULT, progress_of, run_order
from holdfast.domain.ids import AdapterDigest, SnapshotDigest
from holdfast.domain.records import from_plain
from holdfast.domain.retraining import TrainingPlan, TrainingProgress, TrainingResult, WorkOrder
from holdfast.errors import BaseModelRefused, TrainingFailed


class LocalTrainer:
    """Implements ports.Trainer; ``start`` returns when the training has ended. Base and caches stay warm between trainings.

    Args:
        work_folder: holds one folder per key.
        snapshots_path: snapshot digest to the Parquet file of its rows.
        champion_folder: adapter digest to its verified folder.
        bases: base name to path and SHA-256.
        cache_folder: cache of pooled vectors, shared with every other training and with engines of the same folder.
        threads: torch threads.
    """

    def __init__(
        self,
        work_folder: Path,
        *,
        snapshots_path: Callable[[SnapshotDigest], Path],
        champion_folder: Callable[[AdapterDigest], Path],
        bases: Mapping[str, tuple[str, str]],
        cache_folder: Path,
        threads: int = 1,
    ) -> None:
        self._work_folder, self._cache_folder, self._threads = work_folder, cache_folder, threads
        self._snapshots_path, self._champion_folder = snapshots_path, champion_folder
        self._bases = dict(bases)
        self.engine = LoraEngine(bases, threads, cache_folder=cache_folder)
        """Scores here; a replay may answer with it too, so that every text is embedded once."""

    def start(self, plan: TrainingPlan) -> None:
        """Run the plan to its end, or attach to what ran under its key."""
        work = self._work_folder / plan.key
        if progress_of(work).state in ("done", "failed"):
            return
        before = self.engine.loaded()
        write_json(work / ORDER, self._order(plan))
        run_order(work, self.engine)
        for digest in self.engine.loaded() - before:
            self.engine.unload(digest)

    def progress(self, key: str) -> TrainingProgress:
        """How it stands."""
        return progress_of(self._work_folder / key)

    def result(self, key: str) -> TrainingResult:
        """Raises TrainingFailed."""
        work = self._work_folder / key
        state = progress_of(work)
        if state.state != "done":
            raise TrainingFailed(key=key, reason=state.message or f"it is {state.state}", log=work / FAILURE)
        return from_plain(TrainingResult, json.loads((work / RESULT).read_text(encoding="utf-8")))

    def cancel(self, key: str) -> None:
        """Nothing runs between two calls, so there is nothing to stop."""

    def _order(self, plan: TrainingPlan) -> WorkOrder:
        if plan.base not in self._bases:
            raise BaseModelRefused(base=plan.base, reason="the settings name no such base")
        champion = None if plan.champion_digest is None else str(self._champion_folder(plan.champion_digest))
        return WorkOrder(
            plan=plan, snapshot_path=str(self._snapshots_path(plan.snapshot_digest)), champion_folder=champion,
            base_path=self._bases[plan.base][0], cache_folder=str(self._cache_folder), threads=self._threads,
        )  # fmt: skip
