"""A drill over twins: what must be seen is seen, what did not change is not, and nothing is left behind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.domain.captures import Prediction
from holdfast.domain.drill import Drill, DrillPlan
from holdfast.domain.ids import AdapterDigest
from holdfast.errors import DataInvalid, NotFound
from holdfast.flows.drill import DrillGround, drill
from holdfast.ports import House
from holdfast.testing.builders import TASK, a_contract, a_house
from holdfast.testing.clock import NOON
from holdfast.testing.streams import a_stream, a_watched_house, send
from holdfast.testing.twins import EchoEngine

PLAN = DrillPlan(shares=(0.0, 0.9), events=150, quiet_events=100, replicates=4)


def unsure(digest: AdapterDigest, text: str) -> Prediction:
    return Prediction(label="billing", confidence=0.4)


def ground_of(house: House) -> DrillGround:
    return DrillGround(unit_of_work=house.unit_of_work, log=house.log, adapters=house.adapters, engine=EchoEngine(unsure))


def a_busy_house(captures: int = 400, *, labels: bool = True) -> House:
    house, digest = a_watched_house()
    send(house, a_stream(captures, 1, digest=digest), labels=labels)
    return house


@pytest.fixture(scope="module")
def drilled() -> tuple[Drill, House]:
    house = a_busy_house()
    return drill(ground_of(house), TASK, PLAN), house


def test_every_change_has_a_row_for_every_share(drilled: tuple[Drill, House]) -> None:
    result, _ = drilled
    assert [(row.change, row.share) for row in result.rows] == [(change, share) for change in PLAN.changes for share in PLAN.shares]
    assert (result.capture_count, result.labelled_count) == (400, 400)


def test_unchanged_traffic_is_not_seen_as_changed(drilled: tuple[Drill, House]) -> None:
    result, _ = drilled
    assert all(row.seen == row.false_alarms == 0 for row in result.rows if row.share == 0.0)


@pytest.mark.parametrize("change", ["label-swap", "mix-shift"])
def test_a_large_change_is_seen_in_every_stream(drilled: tuple[Drill, House], change: str) -> None:
    row = next(row for row in drilled[0].rows if row.change == change and row.share > 0)
    assert row.seen == PLAN.replicates
    assert row.delay_median is not None
    assert 0 < row.delay_median <= PLAN.events


def test_swapped_labels_are_seen_first_by_the_quality_monitor_and_named_a_concept_change(drilled: tuple[Drill, House]) -> None:
    row = next(row for row in drilled[0].rows if row.change == "label-swap" and row.share > 0)
    assert row.first_monitor == "quality"
    assert row.causes == {"concept change": row.seen}
    assert row.named_rightly == row.seen


def test_the_smallest_share_that_would_be_seen_is_told(drilled: tuple[Drill, House]) -> None:
    assert drilled[0].smallest["label-swap"] == 0.9


def test_nothing_is_written(drilled: tuple[Drill, House]) -> None:
    _, house = drilled
    assert (house.log.count(TASK), house.log.label_count(TASK)) == (400, 400)
    with house.unit_of_work() as uow:
        champion = uow.assignments.get(TASK)
        assert champion is not None
        assert uow.ledger.count() == 0
        assert uow.alerts.of_task(TASK) == ()
        assert uow.monitors.get(TASK, champion.champion) is None


def test_the_same_seed_gives_the_same_drill() -> None:
    house, plan = a_busy_house(), replace(PLAN, changes=("noise",), replicates=2)
    assert drill(ground_of(house), TASK, plan) == drill(ground_of(house), TASK, plan)


def test_without_labels_a_swap_of_labels_is_not_seen() -> None:
    result = drill(ground_of(a_busy_house(labels=False)), TASK, replace(PLAN, changes=("label-swap",)))
    assert [row.seen for row in result.rows] == [0, 0]
    assert result.smallest == {"label-swap": None}


def test_too_few_captures_say_how_many_are_needed() -> None:
    with pytest.raises(DataInvalid, match="answered 120 captures, 250 are needed"):
        drill(ground_of(a_busy_house(120)), TASK, PLAN)


def test_a_task_without_a_champion_is_refused() -> None:
    house = a_house()
    with house.unit_of_work() as uow:
        uow.contracts.put(a_contract(), NOON)
        uow.commit()
    with pytest.raises(NotFound, match="champion"):
        drill(ground_of(house), TASK, PLAN)
