"""The twins that stand for whole systems keep the promises of their ports.

The real trainer, engine, registry and reporter keep theirs in tests/integration, next to what they need to run.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.errors import AdapterRefused, NotFound, PartUnavailable, TrainingFailed
from holdfast.ports import Question
from holdfast.testing.builders import TASK, a_contract, a_digest, a_house, a_plan, a_snapshot, a_snapshot_row, a_training_result, a_version
from holdfast.testing.clock import NOON, SteppedClock
from holdfast.testing.memory import MemoryAdapterStore, MemoryDatabase
from holdfast.testing.twins import CannedTrainer, EchoEngine, MemoryRegistry

ROWS = tuple(a_snapshot_row(n) for n in range(40))


def test_a_training_ends_after_its_polls_and_starting_again_attaches() -> None:
    trainer = CannedTrainer(lambda plan: a_training_result(plan, MemoryAdapterStore(), ROWS), poll_count=2)
    assert trainer.progress("plan-1").state == "absent"
    trainer.start(a_plan())
    trainer.start(a_plan(seed=99))
    assert trainer.plans["plan-1"].seed == 0
    with pytest.raises(TrainingFailed):
        trainer.result("plan-1")
    assert [trainer.progress("plan-1").state for _ in range(3)] == ["running", "done", "done"]
    assert trainer.result("plan-1") == trainer.result("plan-1")
    assert [rung.rung for rung in trainer.result("plan-1").rungs] == ["head", "lora"]


def test_a_training_that_fails_or_is_cancelled_says_why() -> None:
    trainer = CannedTrainer()
    trainer.start(a_plan())
    assert trainer.progress("plan-1").state == "failed"
    trainer.cancel("plan-1")
    with pytest.raises(TrainingFailed, match="cancelled"):
        trainer.result("plan-1")
    trainer.down = True
    with pytest.raises(PartUnavailable):
        trainer.start(a_plan(key="plan-2"))


def test_an_engine_answers_in_order_and_only_with_what_is_loaded() -> None:
    engine = EchoEngine()
    engine.load(a_digest("one"), Path("/nowhere/one"))
    engine.refusing[a_digest("bad")] = "its fingerprint differs"
    with pytest.raises(AdapterRefused):
        engine.load(a_digest("bad"), Path("/nowhere/bad"))
    assert engine.loaded() == {a_digest("one")}
    said = engine.answer([Question(digest=a_digest("one"), text=text) for text in ("billing now", "returns then")])
    assert [answer.prediction.label for answer in said] == ["billing", "returns"]
    with pytest.raises(NotFound, match="adapter"):
        engine.answer([Question(digest=a_digest("bad"), text="x")])
    assert engine.resident() == {a_digest("one"): "bank"}
    engine.pin(frozenset({a_digest("one"), a_digest("bad")}))
    assert engine.loaded() == {a_digest("one")}
    engine.unload(a_digest("one"))
    engine.unload(a_digest("one"))
    assert engine.loaded() == frozenset()


def test_a_registry_moves_aliases_and_removes_them() -> None:
    registry = MemoryRegistry()
    registry.set_alias(TASK, "champion", "3")
    registry.set_alias(TASK, "challenger", "4")
    registry.set_alias(TASK, "challenger", None)
    registry.set_alias(TASK, "challenger", None)
    assert registry.aliases(TASK) == {"champion": "3"}
    registry.down = True
    with pytest.raises(PartUnavailable):
        registry.aliases(TASK)


def test_a_house_of_twins_trains_to_adapters_that_its_store_takes() -> None:
    house = a_house()
    snapshot = a_snapshot(ROWS)
    house.snapshots.save(snapshot.digest, ROWS)
    plan = a_plan(snapshot_digest=snapshot.digest, champion_digest=a_digest("champion"))
    house.trainer.start(plan)
    assert house.trainer.progress(plan.key).state == "done"
    result = house.trainer.result(plan.key)
    for rung in result.rungs:
        assert house.adapters.add(Path(rung.folder)).rung == rung.rung
        assert house.adapters.reference(rung.digest).adapter_digest == rung.digest
    assert set(result.scores) == {*(rung.digest for rung in result.rungs), a_digest("champion")}


def test_a_unit_of_work_inside_a_unit_of_work_says_so_instead_of_hanging() -> None:
    database = MemoryDatabase()
    with database.unit_of_work() as work:
        work.contracts.put(a_contract(), NOON)
        with pytest.raises(PartUnavailable, match="inside a unit of work"), database.unit_of_work():
            pass
        work.versions.put(a_version())
        work.commit()
    with database.unit_of_work() as work:
        assert work.versions.find(a_digest()) == a_version()


def test_a_stepped_clock_stands_still_until_it_is_stepped() -> None:
    clock = SteppedClock()
    assert clock() == clock() == NOON
    clock.step(-30)
    assert clock() == NOON - timedelta(seconds=30)
