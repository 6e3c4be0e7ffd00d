"""The stage of a backtest, and the arm that bounds the others: trained anew before each period on every label so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from holdfast.domain.answers import label_counts, row_score
from holdfast.domain.datasets import Example, HistoryRow, SnapshotRow, rows_digest
from holdfast.domain.gates import pick_rung
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.retraining import SEED, TrainingPlan, rungs_of
from holdfast.domain.splits import first_snapshot
from holdfast.domain.tasks import Metric, TaskContract
from holdfast.ports import Answer, House, InferenceEngine, Question

ANSWER_ROWS = 512
KEPT_HELD_OUT = 50
"""Held-out rows of the bound's trainings: enough for a reference window; all others teach."""


class ReplayClock:
    """Stands where the history stands; never goes back."""

    def __init__(self) -> None:
        self.now = datetime.fromtimestamp(0, UTC)

    def __call__(self) -> datetime:
        return self.now

    def reach(self, at: datetime) -> None:
        """Go on to ``at``; an instant that has passed is ignored."""
        self.now = max(self.now, at)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """What a backtest is played on. The clock is the one that the house reads."""

    house: House
    engine: InferenceEngine
    clock: ReplayClock


class SharedWork:
    """How right the arms beside the loop are, kept so that a second replay of the same history need not ask again."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], list[float]] = {}

    def of(self, key: tuple[object, ...], make: Callable[[], list[float]]) -> list[float]:
        """What was made under the key before, or is made now."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def taught_alike(contract: TaskContract) -> tuple[object, ...]:
    """All of a contract that says what a training on given rows gives, and how it is scored."""
    policy = contract.retraining
    return contract.base, contract.kind, contract.metric, contract.max_tokens, policy.rung, policy.lora


class BoundArm:
    """Trained anew before each period on every label so far."""

    def __init__(self, stage: Stage, contract: TaskContract) -> None:
        self.house, self.engine, self.contract = stage.house, stage.engine, contract

    def answer(self, known: Sequence[HistoryRow], rows: Sequence[HistoryRow]) -> list[float]:
        """How right a version trained on ``known`` is on each of ``rows``. Raises TrainingFailed."""
        digest, folder = self._train(known)
        held = digest in self.engine.loaded()
        self.engine.load(digest, folder)
        answers = ask(self.engine, digest, [row.text for row in rows])
        if not held:
            self.engine.unload(digest)
        return right(answers, rows, self.contract.metric)

    def _train(self, known: Sequence[HistoryRow]) -> tuple[AdapterDigest, Path]:
        rows = _rows_to_learn(known)
        snapshot = rows_digest(rows)
        self.house.snapshots.save(snapshot, rows)
        policy, taught = self.contract.retraining, label_counts(r.label for r in rows if r.split == "train")
        plan = TrainingPlan(
            key=f"bound-{len(known)}", task=TaskName(self.contract.task), base=self.contract.base,
            base_digest=self.house.base_digests[self.contract.base], labels=tuple(sorted(taught)),
            max_tokens=self.contract.max_tokens, rungs=rungs_of(policy), lora=policy.lora, seed=SEED, snapshot_digest=snapshot,
            champion_digest=None, kind=self.contract.kind,
        )  # fmt: skip
        trainer = self.house.trainer
        trainer.start(plan)
        while trainer.progress(plan.key).state == "running":
            time.sleep(0.01)
        result = trainer.result(plan.key)
        scores = {rung.rung: result.scores[rung.digest] for rung in result.rungs}
        chosen = pick_rung(policy, scores["head"], scores.get("lora"), rows, self.contract.metric)
        rung = next(rung for rung in result.rungs if rung.rung == chosen)
        return rung.digest, Path(rung.folder)


def _rows_to_learn(known: Sequence[HistoryRow]) -> tuple[SnapshotRow, ...]:
    """Each text once, with its newest label; nearly all of it to learn from, for this arm is never judged."""
    newest_first = [Example(text=row.text, label=row.label, source="history") for row in reversed(known)]
    rows, held = [], 0
    for number, row in enumerate(reversed(first_snapshot(newest_first, seed=SEED).rows)):
        held += row.split == "holdout"
        rows.append(replace(row, row_id=number, split="train" if held > KEPT_HELD_OUT and row.split == "holdout" else row.split))
    return tuple(rows)


def ask(engine: InferenceEngine, digest: AdapterDigest, texts: Sequence[str]) -> list[Answer]:
    answers: list[Answer] = []
    for start in range(0, len(texts), ANSWER_ROWS):
        answers += engine.answer([Question(digest=digest, text=text) for text in texts[start : start + ANSWER_ROWS]])
    return answers


def right(answers: Sequence[Answer], rows: Sequence[HistoryRow], metric: Metric) -> list[float]:
    return [row_score(answer.prediction.label, row.label, metric) for answer, row in zip(answers, rows, strict=True)]
