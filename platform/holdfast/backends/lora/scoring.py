"""Scoring: a trained rung becomes an adapter folder, and versions answer the held-out rows of their snapshot."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.backends.lora.engine import LoraEngine
from holdfast.backends.lora.files import FINGERPRINT_NAME, HEAD_NAME, LORA_NAME, file_digest, finish_adapter, save_tensors, write_json
from holdfast.backends.lora.head import Head
from holdfast.backends.lora.lora_format import LoraWeights, write_config
from holdfast.domain.adapters import MANIFEST_NAME, REFERENCE_NAME, WEIGHT_FILES, Manifest
from holdfast.domain.datasets import SnapshotRow
from holdfast.domain.ids import AdapterDigest
from holdfast.domain.retraining import HoldoutScores, TrainingPlan
from holdfast.domain.tasks import Rung
from holdfast.errors import StorageRefused
from holdfast.ports import Answer, Question

FITTED_ROWS = 2_000
RECENT_ROWS = 60
"""Held-out recent rows from which on the reference is calibrated on those alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """What a rung was trained to."""

    rung: Rung
    head: Head
    lora: LoraWeights | None = None
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """Rows with what one version said to them."""

    rows: Sequence[SnapshotRow]
    answers: Sequence[Answer]


def write_weights(folder: Path, weights: Weights, plan: TrainingPlan) -> Manifest:
    """Weight files and manifest into an empty folder. The manifest is not final: `seal` writes it again, last."""
    save_tensors(folder / HEAD_NAME, {"weight": weights.head.weight, "bias": weights.head.bias})
    if weights.lora is not None and weights.config is not None:
        save_tensors(folder / LORA_NAME, weights.lora.tensors)
        write_config(folder, weights.config)
    files = {name: file_digest(folder / name) for name in WEIGHT_FILES if (folder / name).exists()}
    return Manifest(
        task=plan.task, rung=weights.rung, base=plan.base, base_digest=plan.base_digest, labels=plan.labels,
        max_tokens=plan.max_tokens, files=files, kind=plan.kind,
    )  # fmt: skip


def seal(folder: Path, weights: Weights, plan: TrainingPlan, *, rows: Sequence[SnapshotRow], engine: LoraEngine) -> HoldoutScores:
    """Make ``folder`` a whole adapter (weights, fingerprint, reference, manifest last), load it, and score it on the held-out rows.

    Raises StorageRefused.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        manifest = write_weights(folder, weights, plan)
        digest = finish_adapter(folder, manifest)
        adapter = engine.read(folder)
        write_json(folder / FINGERPRINT_NAME, engine.fingerprint(adapter))
        engine.load(digest, folder)
        holdout = answer_rows(engine, digest, [row for row in rows if row.split == "holdout"])
        fitted = answer_rows(engine, digest, _sample([row for row in rows if row.split == "train"], plan.seed))
        (folder / MANIFEST_NAME).unlink()
        _write_reference(folder / REFERENCE_NAME, fitted, _calibration(holdout))
        finish_adapter(folder, manifest)
    except OSError as error:
        raise StorageRefused(place=folder, reason=error.strerror or error) from error
    return scores_of(digest, holdout)


def answer_rows(engine: LoraEngine, digest: AdapterDigest, rows: Sequence[SnapshotRow]) -> Answered:
    """What a loaded version says to rows."""
    return Answered(rows, engine.answer([Question(digest=digest, text=row.text) for row in rows]))


def scores_of(digest: AdapterDigest, answered: Answered) -> HoldoutScores:
    """The record of answers to held-out rows; a label the version does not know is simply answered wrong."""
    return HoldoutScores(
        digest=digest,
        row_ids=tuple(row.row_id for row in answered.rows),
        predictions=tuple(one.prediction.label for one in answered.answers),
        confidences=tuple(one.prediction.confidence for one in answered.answers),
    )


def _sample(rows: Sequence[SnapshotRow], seed: int) -> list[SnapshotRow]:
    if len(rows) <= FITTED_ROWS:
        return list(rows)
    chosen = sorted(random.Random(seed).sample(range(len(rows)), FITTED_ROWS))
    return [rows[i] for i in chosen]


def _calibration(holdout: Answered) -> Answered:
    recent = [i for i, row in enumerate(holdout.rows) if row.period == "recent"]
    if len(recent) < RECENT_ROWS:
        return holdout
    return Answered([holdout.rows[i] for i in recent], [holdout.answers[i] for i in recent])


def _write_reference(path: Path, fitted: Answered, calibration: Answered) -> None:
    parts = [("fitted", fitted), ("calibration", calibration)]
    rows = [(part, row, one) for part, answered in parts for row, one in zip(answered.rows, answered.answers, strict=True)]
    vectors = np.array([one.embedding for _, _, one in rows], dtype=np.float32)
    table = pa.table(
        {
            "part": pa.array([part for part, _, _ in rows], pa.string()),
            "text": pa.array([row.text for _, row, _ in rows], pa.string()),
            "label": pa.array([row.label for _, row, _ in rows], pa.string()),
            "prediction": pa.array([one.prediction.label for _, _, one in rows], pa.string()),
            "confidence": pa.array([one.prediction.confidence for _, _, one in rows], pa.float32()),
            "embedding": pa.array(list(vectors), pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, path, compression="zstd")
