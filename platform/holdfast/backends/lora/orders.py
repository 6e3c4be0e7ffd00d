"""One work order, from ``order.json`` to ``result.json`` or ``failure.json``."""

from __future__ import annotations

import fcntl
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from holdfast.backends.lora.checkpoints import Checkpoints
from holdfast.backends.lora.engine import LoraEngine
from holdfast.backends.lora.files import byte_count, read_json, read_manifest, write_json
from holdfast.backends.lora.head import FittedHead, Rows, fit_head, refit_head
from holdfast.backends.lora.prefix_cache import FrozenPrefix
from holdfast.backends.lora.scoring import Weights, answer_rows, scores_of, seal
from holdfast.backends.lora.selection import Split, select
from holdfast.backends.lora.targets import IGNORED, row_targets
from holdfast.backends.lora.trainer import PrefixRows, adapted_rows, train_lora
from holdfast.domain.adapters import adapter_digest, output_count
from holdfast.domain.answers import kind_of, labels_in
from holdfast.domain.datasets import SnapshotRow, TaughtRows
from holdfast.domain.records import digest_of, from_plain
from holdfast.domain.retraining import CurvePoint, HoldoutScores, TrainedRung, TrainingProgress, TrainingResult, WorkOrder
from holdfast.domain.tasks import Rung
from holdfast.errors import BaseModelRefused, DataInvalid, HoldfastError

ORDER, PROGRESS, RESULT, FAILURE = "order.json", "progress.json", "result.json", "failure.json"
_log = logging.getLogger(__name__)


class Progress:
    """Tells how far a training is, in ``progress.json``, at most once a second."""

    def __init__(self, work: Path) -> None:
        self._work, self._told = work, 0.0

    def tell(self, share: float, message: str) -> None:
        """Note the share that is done, 0..1."""
        if time.monotonic() - self._told >= 1.0:
            self._told = time.monotonic()
            write_json(self._work / PROGRESS, TrainingProgress(state="running", share=min(1.0, share), message=message))


@dataclass(frozen=True, slots=True, eq=False)
class _Site:
    order: WorkOrder
    work: Path
    rows: tuple[SnapshotRow, ...]
    engine: LoraEngine
    progress: Progress

    def split(self, name: str) -> list[SnapshotRow]:
        return [row for row in self.rows if row.split == name]

    def targets(self, rows: Sequence[SnapshotRow]) -> list[Tensor]:
        plan = self.order.plan
        spans = plan.kind == "extraction"
        offsets = self.engine.base(plan.base).offsets([row.text for row in rows], plan.max_tokens) if spans else ()
        return row_targets(plan.kind, plan.labels, [row.label for row in rows], offsets)


def run_order(work: Path, engine: LoraEngine | None = None) -> None:
    """Execute ``order.json``; at the end there is ``result.json``, or ``failure.json`` with one reason. Never raises for a failed training.

    A finished order is not run again, an interrupted one goes on from its checkpoints, and two runs of one order take turns.
    An ``engine`` that is given must be bound to the order's base and cache; it stays warm.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (work / RESULT).exists() or (work / FAILURE).exists():
            return
        try:
            order = from_plain(WorkOrder, json.loads((work / ORDER).read_text(encoding="utf-8")))
            write_json(work / RESULT, _execute(order, work, engine))
        except Exception as error:  # whatever it was, whoever asked must be told
            _log.exception("the training in %s failed", work)
            reason = str(error) if isinstance(error, HoldfastError) else f"{type(error).__name__}: {error}"
            write_json(work / FAILURE, TrainingProgress(state="failed", message=reason))


def read_rows(path: Path) -> tuple[SnapshotRow, ...]:
    """The rows of a snapshot. Raises DataInvalid."""
    try:
        return tuple(SnapshotRow(**row) for row in pq.read_table(path).to_pylist())
    except (OSError, pa.ArrowException, TypeError) as error:
        raise DataInvalid(
            source=path, problem=f"it is not a snapshot ({error})", place="the file", remedy="freeze the snapshot again."
        ) from error


def _execute(order: WorkOrder, work: Path, engine: LoraEngine | None) -> TrainingResult:
    plan = order.plan
    digest = plan.base_digest.removeprefix("sha256:")
    engine = engine or LoraEngine({plan.base: (order.base_path, digest)}, order.threads, cache_folder=Path(order.cache_folder))
    if engine.base(plan.base).digest != digest:
        raise BaseModelRefused(base=plan.base, reason=f"the plan asks for {plan.base_digest}")
    rows = read_rows(Path(order.snapshot_path))
    _check(rows, order)
    site = _Site(order, work, rows, engine, Progress(work))
    site.progress.tell(0.0, "reading texts")
    rungs: list[TrainedRung] = []
    scores: dict[str, HoldoutScores] = {}
    site, fitted, seconds, taught = _fit(site)
    for rung in plan.rungs:
        trained, found = _head_rung(site, fitted, seconds) if rung == "head" else _lora_rung(site, fitted)
        rungs.append(trained)
        scores[found.digest] = found
    if plan.champion_digest is not None and order.champion_folder is not None:
        engine.load(plan.champion_digest, Path(order.champion_folder))
        scores[plan.champion_digest] = scores_of(plan.champion_digest, answer_rows(engine, plan.champion_digest, site.split("holdout")))
    return TrainingResult(key=plan.key, rungs=tuple(rungs), scores=scores, taught=taught)


def _check(rows: Sequence[SnapshotRow], order: WorkOrder) -> None:
    """Raises DataInvalid where nothing can be learned from the rows."""
    remedy = "correct the data of the task (`holdfast data audit`) and train again."
    plan = order.plan
    for row in rows:
        unknown = [label for label in labels_in(row.label) if label not in plan.labels] if row.split != "holdout" else []
        if unknown or kind_of(row.label) != plan.kind:
            problem = f"the label {unknown[0]!r} is not in the plan" if unknown else f"its label is not one of a task of kind {plan.kind}"
            raise DataInvalid(source=order.snapshot_path, problem=problem, place=f"row {row.row_id}", remedy=remedy)
    seen = {row.label for row in rows if row.split == "train"}
    if len(seen) < 2:
        problem = f"the training rows have {len(seen)} label(s); two are needed"
        raise DataInvalid(source=order.snapshot_path, problem=problem, place="split train", remedy=remedy)


def _fit(site: _Site) -> tuple[_Site, FittedHead, float, TaughtRows | None]:
    """The site with the training rows that teach, the head fitted on them, the seconds it took, and what was decided on the rows."""
    began = time.monotonic()
    plan = site.order.plan
    frozen = site.engine.frozen(site.engine.base(plan.base), plan.max_tokens)
    texts = [row.text for row in site.rows]

    def tell(share: float) -> None:
        site.progress.tell(0.2 * share, "reading texts")

    taught = None
    if plan.kind == "extraction":
        frozen.hidden(texts, len(frozen.base.layers), tell)
    else:
        frozen.pooled(texts, tell)
        site, taught = _selected(site, frozen)
    fitted = fit_head(
        _head_rows(site, frozen, "train"), _head_rows(site, frozen, "validation"), output_count(plan.kind, plan.labels),
        lambda share: site.progress.tell(0.2 + 0.15 * share, "fitting the head"),
    )  # fmt: skip
    return site, fitted, time.monotonic() - began, taught


def _selected(site: _Site, frozen: FrozenPrefix) -> tuple[_Site, TaughtRows]:
    plan = site.order.plan
    train, validation = (Split(site.split(name), _head_rows(site, frozen, name)) for name in ("train", "validation"))
    positions, taught = select(train, validation, plan.labels, plan.max_suspected_share)
    learnt = {train.rows[i].row_id for i in positions}
    return replace(site, rows=tuple(row for row in site.rows if row.split != "train" or row.row_id in learnt)), taught


def _head_rows(site: _Site, frozen: FrozenPrefix, name: str) -> Rows:
    """What the head of a kind learns from: pooled vectors of texts, or the tokens of all texts."""
    split = site.split(name)
    targets = site.targets(split)
    texts = [row.text for row in split]
    if site.order.plan.kind != "extraction":
        return Rows(frozen.pooled(texts), torch.stack(targets).numpy() if targets else np.zeros(0, np.int64))
    tags = torch.cat(targets) if targets else torch.zeros(0, dtype=torch.int64)
    learnt = tags != IGNORED
    states = torch.cat(frozen.hidden(texts, len(frozen.base.layers))) if targets else torch.zeros(0, frozen.base.hidden)
    return Rows(states[learnt].float().numpy(), tags[learnt].numpy(), tokens=True)  # [tokens, hidden], [tokens]


def _head_rung(site: _Site, fitted: FittedHead, seconds: float) -> tuple[TrainedRung, HoldoutScores]:
    folder = site.work / "adapters" / "head"
    scores = seal(folder, Weights("head", fitted.on_all), site.order.plan, rows=site.rows, engine=site.engine)
    return _record(folder, "head", seconds, curve=fitted.curve, best_step=fitted.best_step), scores


def _lora_rung(site: _Site, fitted: FittedHead) -> tuple[TrainedRung, HoldoutScores]:
    plan = site.order.plan
    base = site.engine.base(plan.base)
    depth = max(0, len(base.layers) - plan.lora.last_layers)
    frozen = site.engine.frozen(base, plan.max_tokens)

    def prefix_rows(name: str, start: float, width: float) -> PrefixRows:
        split = site.split(name)
        states = frozen.hidden(
            [row.text for row in split], depth, lambda share: site.progress.tell(start + width * share, "running the frozen layers")
        )
        return PrefixRows(states, site.targets(split), tokens=plan.kind == "extraction")

    train, validation = prefix_rows("train", 0.35, 0.1), prefix_rows("validation", 0.45, 0.02)
    result = train_lora(
        base, plan.lora, train, validation, head=fitted.on_train, seed=plan.seed,
        checkpoints=Checkpoints(site.work / "checkpoints", digest_of({"plan": _recipe(site), "head": fitted.c})),
        tick=lambda share, message: site.progress.tell(0.47 + 0.48 * share, message),
    )  # fmt: skip
    folder = site.work / "adapters" / "lora"
    head = result.head
    if plan.kind == "classification":  # thresholds of sets, and tags of tokens, are the training's own
        head = refit_head(head, *(adapted_rows(base, result.lora, rows) for rows in (train, validation)))
    weights = Weights("lora", head, result.lora, result.config)
    scores = seal(folder, weights, plan, rows=site.rows, engine=site.engine)
    return _record(folder, "lora", result.seconds, curve=result.curve, best_step=result.best_step), scores


def _recipe(site: _Site) -> str:
    """What a checkpoint must agree with to be resumed: the plan but for its key."""
    plan = site.order.plan
    return digest_of(
        [plan.kind, plan.base_digest, plan.labels, plan.max_tokens, plan.lora, plan.seed, plan.snapshot_digest, plan.max_suspected_share]
    )


def _record(folder: Path, rung: Rung, seconds: float, *, curve: tuple[CurvePoint, ...], best_step: int) -> TrainedRung:
    return TrainedRung(
        rung=rung, digest=adapter_digest(read_manifest(folder)), folder=str(folder.absolute()), seconds=seconds,
        byte_count=byte_count(folder), curve=curve, best_step=best_step,
    )  # fmt: skip


def progress_of(work: Path) -> TrainingProgress:
    """How the training of a work folder stands."""
    if (work / RESULT).exists():
        return TrainingProgress(state="done", share=1.0)
    for name in (FAILURE, PROGRESS):
        plain = read_json(work / name)
        if isinstance(plain, dict):
            return from_plain(TrainingProgress, plain)
    return TrainingProgress(state="absent")
