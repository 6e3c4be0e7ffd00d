"""Checkpoints of a LoRA training: safetensors and JSON, whole or absent, so that a killed training goes on bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from holdfast.backends.lora.files import file_digest, load_tensors, read_json, save_tensors, write_folder, write_json
from holdfast.domain.records import from_plain
from holdfast.domain.retraining import CurvePoint
from holdfast.errors import AdapterRefused

STATE_NAME = "state.json"
TENSORS_NAME = "state.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """Where a training stood."""

    recipe: str
    """Digest of plan and rows; a checkpoint of another recipe is not resumed."""
    step: int
    """Optimiser steps done."""
    best_step: int
    curve: tuple[CurvePoint, ...]
    seconds: float
    """Spent so far, over all attempts."""
    digest: str
    """Of the tensors' file."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Facts and tensors: parameters under ``now.``, their average under ``mean.``, the best so far under ``best.``, and Adam's moments."""

    facts: CheckpointFacts
    tensors: Mapping[str, Tensor]

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under one prefix, without it."""
        return {name.removeprefix(prefix): tensor for name, tensor in self.tensors.items() if name.startswith(prefix)}


class Checkpoints:
    """The checkpoints of one training, in one folder; the newest whole one counts."""

    def __init__(self, folder: Path, recipe: str) -> None:
        self._folder, self._recipe = folder, recipe

    def save(self, facts: CheckpointFacts, tensors: Mapping[str, Tensor]) -> None:
        """Write one, then drop the older ones. Raises StorageRefused."""

        def fill(folder: Path) -> None:
            save_tensors(folder / TENSORS_NAME, tensors)
            whole = CheckpointFacts(
                recipe=self._recipe, step=facts.step, best_step=facts.best_step, curve=facts.curve, seconds=facts.seconds,
                digest=file_digest(folder / TENSORS_NAME),
            )  # fmt: skip
            write_json(folder / STATE_NAME, whole)

        write_folder(self._folder / f"{facts.step:08d}", fill)
        for older in self._all():
            if older.name < f"{facts.step:08d}":
                shutil.rmtree(older, ignore_errors=True)

    def newest(self) -> Checkpoint | None:
        """The newest that is whole and of this recipe."""
        for folder in reversed(self._all()):
            plain = read_json(folder / STATE_NAME)
            if not isinstance(plain, dict) or plain.get("recipe") != self._recipe:
                continue
            if file_digest(folder / TENSORS_NAME) != plain["digest"]:
                continue
            try:
                return Checkpoint(from_plain(CheckpointFacts, plain), load_tensors(folder / TENSORS_NAME))
            except AdapterRefused:
                continue
        return None

    def _all(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(one for one in self._folder.iterdir() if one.is_dir() and one.name.isdigit())
