"""A replay through the real flows, with a learner so small that it can be seen through: what a first word meant lately."""

from __future__ import annotations

import functools
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.domain.backtest import Backtest, ReplayPlan, derived_contract
from holdfast.domain.captures import Prediction
from holdfast.domain.comparison import Comparison
from holdfast.domain.datasets import HistoryRow, SnapshotRow
from holdfast.domain.ids import AdapterDigest
from holdfast.domain.records import to_plain
from holdfast.domain.retraining import HoldoutScores, TrainingPlan, TrainingResult
from holdfast.domain.windows import ReferenceWindow, WindowRows
from holdfast.errors import DataInvalid, RequestInvalid
from holdfast.flows.backtest import backtest
from holdfast.flows.backtest_stage import ReplayClock, Stage
from holdfast.flows.compare import compare_policies
from holdfast.ports import Answer, Question
from holdfast.testing.builders import a_house, a_training_result
from holdfast.testing.clock import NOON
from holdfast.testing.memory_stores import MemoryAdapterStore, MemorySnapshotStore
from holdfast.testing.twins import CannedTrainer, EchoEngine, embedding_of

WORDS = {"money": "billing", "parcel": "delivery", "back": "returns", "help": "returns"}
WARMUP, CHANGE, ROWS = 300, 500, 1000
PLAN = ReplayPlan(warmup_share=WARMUP / ROWS, label_delay=20, period_count=6)


class WordLearner:
    """Trains, scores and answers by the first word of a text."""

    def __init__(self) -> None:
        self.adapters, self.snapshots = MemoryAdapterStore(), MemorySnapshotStore()
        self.tables: dict[AdapterDigest, dict[str, str]] = {}
        self.plans: list[TrainingPlan] = []
        self.results: dict[str, TrainingResult] = {}

    def answer(self, digest: AdapterDigest, text: str) -> Prediction:
        word = text.split(maxsplit=1)[0]
        return Prediction(label=self.tables[digest].get(word, "billing"), confidence=0.6 + 0.3 * random.Random(text).random())

    def train(self, plan: TrainingPlan) -> TrainingResult:
        if plan.key in self.results:
            return self.results[plan.key]
        self.plans.append(plan)
        rows = self.snapshots.load(plan.snapshot_digest)
        made = a_training_result(plan, self.adapters, rows)
        seen: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if row.split == "train":
                seen[row.text.split(maxsplit=1)[0]].append(row.label)
        for rung in made.rungs:
            self.tables[rung.digest] = {word: Counter(labels[-15:]).most_common(1)[0][0] for word, labels in seen.items()}
            self.adapters.plant(
                Path(rung.folder), replace(self.adapters.planted[Path(rung.folder)], reference=self._reference(rung.digest, rows))
            )
        held = [row for row in rows if row.split == "holdout"]
        self.results[plan.key] = replace(made, scores={digest: self._scores(AdapterDigest(digest), held) for digest in made.scores})
        return self.results[plan.key]

    def _scores(self, digest: AdapterDigest, held: Sequence[SnapshotRow]) -> HoldoutScores:
        said = [self.answer(digest, row.text) for row in held]
        return HoldoutScores(
            digest=digest, row_ids=tuple(row.row_id for row in held), predictions=tuple(p.label for p in said),
            confidences=tuple(p.confidence for p in said),
        )  # fmt: skip

    def _reference(self, digest: AdapterDigest, rows: Sequence[SnapshotRow]) -> ReferenceWindow:
        parts = ([row for row in rows if row.split == "train"], [row for row in rows if row.split == "holdout"])
        fitted, calibration = (self._window(digest, part) for part in parts)
        return ReferenceWindow(adapter_digest=digest, fitted=fitted, calibration=calibration)

    def _window(self, digest: AdapterDigest, rows: Sequence[SnapshotRow]) -> WindowRows:
        said = [self.answer(digest, row.text) for row in rows]
        return WindowRows(
            texts=tuple(row.text for row in rows), predictions=tuple(p.label for p in said),
            confidences=np.array([p.confidence for p in said], dtype=np.float32),
            embeddings=np.array([vector_of(row.text) for row in rows], dtype=np.float32), labels=tuple(row.label for row in rows),
        )  # fmt: skip


class WordEngine(EchoEngine):
    """Embeds a text near its first word."""

    def answer(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        return tuple(replace(a, embedding=vector_of(q.text)) for a, q in zip(super().answer(questions), questions, strict=True))


@functools.cache
def vector_of(text: str) -> tuple[float, ...]:
    """[hidden], the vector of the first word with a little of the whole text."""
    return tuple(3 * a + 0.5 * b for a, b in zip(embedding_of(text.split(maxsplit=1)[0]), embedding_of(text), strict=True))


def a_history(*, change_at: int | None = None, words_after: dict[str, str] | None = None, seed: int = 3) -> tuple[HistoryRow, ...]:
    """Rows an hour apart, a few of them labelled at random; from ``change_at`` on other words or other labels of words."""
    chance = random.Random(seed)
    rows = []
    for index in range(ROWS):
        world = words_after if change_at is not None and index >= change_at and words_after else WORDS
        word = chance.choice(sorted(world))
        label = chance.choice(sorted(set(world.values()))) if chance.random() < 0.04 else world[word]
        rows.append(HistoryRow(text=f"{word} {chance.randrange(10**9)}", label=label, at=NOON + timedelta(hours=index), index=index))
    return tuple(rows)


def replay(history: Sequence[HistoryRow], **fields: Any) -> tuple[Backtest, WordLearner]:
    """The history under the derived contract, in a fresh house of twins."""
    learner = WordLearner()
    return backtest(a_stage(learner), derived_contract(history[:WARMUP]), history, replace(PLAN, **fields)), learner


def a_stage(learner: WordLearner) -> Stage:
    clock = ReplayClock()
    house = a_house(adapters=learner.adapters, snapshots=learner.snapshots, trainer=CannedTrainer(learner.train), clock=clock)
    return Stage(house=house, engine=WordEngine(learner.answer), clock=clock)


MOVED = {**WORDS, "help": "billing"}


def test_after_a_change_of_meaning_the_loop_recovers_and_the_frozen_version_does_not() -> None:
    result, _ = replay(a_history(change_at=CHANGE, words_after=MOVED))
    last = result.periods[-1]
    assert last.accuracy_frozen < 0.85
    assert last.accuracy_loop > 0.9
    assert result.promotions
    assert result.alerts[0].event_index >= CHANGE
    assert abs(result.alerts[0].onset_index - CHANGE) < 60


def test_a_history_without_a_change_raises_no_alarm() -> None:
    result, learner = replay(a_history())
    assert not result.alerts
    assert not result.retrainings
    assert not result.promotions
    assert all(p.accuracy_loop == p.accuracy_frozen for p in result.periods)
    assert sum(plan.key.startswith("rtr_") for plan in learner.plans) == 1


def test_a_class_that_first_appears_after_the_warm_up_is_learnt() -> None:
    result, learner = replay(a_history(change_at=CHANGE, words_after={**WORDS, "parcel": "customs", "toll": "customs"}))
    assert result.totals.labels_new == 1
    assert any("customs" in plan.labels for plan in learner.plans if plan.champion_digest is not None)
    assert result.periods[-1].accuracy_loop > result.periods[-1].accuracy_frozen + 0.2


def test_without_labels_the_loop_changes_nothing() -> None:
    result, _ = replay(a_history(change_at=CHANGE, words_after=MOVED), label_share=0.0)
    assert result.totals.labels_known == 0
    assert not result.promotions


def test_the_loop_knows_no_label_before_its_delay_has_passed() -> None:
    prompt, _ = replay(a_history(change_at=CHANGE, words_after=MOVED))
    late, _ = replay(a_history(change_at=CHANGE, words_after=MOVED), label_delay=250)
    assert late.alerts[0].event_index >= CHANGE + 250 > prompt.alerts[0].event_index
    assert late.totals.labels_known == ROWS - WARMUP - 250


def test_the_same_seed_gives_the_same_result() -> None:
    history = a_history(change_at=CHANGE, words_after=MOVED)
    results = [replay(history, label_share=0.5)[0] for _ in range(2)]
    assert without_seconds(results[0]) == without_seconds(results[1])


def without_seconds(result: Backtest) -> object:
    timeless = tuple(replace(r, seconds=0.0) for r in result.retrainings)
    return to_plain(replace(result, retrainings=timeless, totals=replace(result.totals, seconds=0.0)))


def test_periods_cover_every_event_once() -> None:
    result, _ = replay(a_history(), period_count=7)
    assert sum(p.events for p in result.periods) == ROWS - WARMUP == result.totals.events
    assert result.periods[0].first_index == WARMUP


@pytest.mark.parametrize("fields", [{"label_share": 1.5}, {"warmup_share": 0.0}, {"label_delay": -1}, {"period_count": 0}])
def test_a_number_out_of_range_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(RequestInvalid, match=next(iter(fields))):
        replay(a_history(), **fields)


def test_a_history_that_is_too_short_is_refused() -> None:
    with pytest.raises(DataInvalid, match="100 are needed"):
        replay(a_history()[:200])


def compared(history: Sequence[HistoryRow], **retraining: Any) -> tuple[Comparison, tuple[WordLearner, WordLearner]]:
    """The derived contract beside itself with other fields of its retraining policy, each in a house of its own."""
    learners, contract = (WordLearner(), WordLearner()), derived_contract(history[:WARMUP])
    other = replace(contract, retraining=replace(contract.retraining, **retraining))
    stages = (lambda: a_stage(learners[0]), lambda: a_stage(learners[1]))
    return compare_policies(stages, (contract, other), history, PLAN), learners


def test_a_policy_beside_itself_makes_no_difference() -> None:
    result, _ = compared(a_history(change_at=CHANGE, words_after=MOVED))
    assert {pair.kind for pair in result.decisions} >= {"alert", "diagnosis", "retraining requested", "verdict", "promotion"}
    assert {pair.words for pair in result.decisions} == {"same"}
    assert result.summary.startswith("No difference")
    assert result.difference.mean == 0.0
    assert result.a.accuracy == result.b.accuracy


def test_a_policy_that_only_suggests_is_seen_to_hold_back_and_to_answer_worse() -> None:
    result, _ = compared(a_history(change_at=CHANGE, words_after=MOVED), mode="suggest")
    words = {kind: {p.words for p in result.decisions if p.kind == kind} for kind in ("alert", "promotion")}
    assert "same" in words["alert"]
    assert words["promotion"] == {"only in A"}
    assert any("only lets it be suggested" in p.b.said for p in result.decisions if p.kind == "retraining held" and p.b)
    assert result.difference.upper < 0
    assert "A answers surely better" in result.summary
    assert (result.a.promotion_count > 0, result.b.retraining_count) == (True, 0)


def test_a_policy_that_waits_for_more_labels_spares_the_retraining_that_came_too_early() -> None:
    result, _ = compared(a_history(change_at=CHANGE, words_after=MOVED), min_labels=130)
    asked = [p for p in result.decisions if p.kind == "retraining requested"]
    assert [p.words for p in asked] == ["only in A", "same"]
    assert (result.a.retraining_count, result.b.retraining_count) == (2, 1)
    assert "3 are only in A and 0 only in B" in result.summary


def test_what_two_policies_have_in_common_is_trained_once() -> None:
    _, learners = compared(a_history(), mode="suggest")
    bounds = [sum(plan.key.startswith("bound-") for plan in learner.plans) for learner in learners]
    assert bounds == [PLAN.period_count, 0]


def test_policies_that_train_otherwise_have_a_bound_each() -> None:
    _, learners = compared(a_history(), rung="lora")
    assert [sum(plan.key.startswith("bound-") for plan in learner.plans) for learner in learners] == [PLAN.period_count] * 2
