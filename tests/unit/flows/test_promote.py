"""Promotion: only with a verdict for that very adapter, one winner, and a way back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from holdfast.domain.ledger import verify
from holdfast.domain.records import digest_of
from holdfast.errors import GateRefused, NotFound, StaleGeneration
from holdfast.flows import promote, roll_out
from holdfast.ports import House
from holdfast.testing.builders import TASK, a_contract, a_digest, a_house, a_replica_report, a_verdict, a_version
from holdfast.testing.clock import SteppedClock
from holdfast.testing.twins import MemoryRegistry

FIRST, SECOND = a_digest("first"), a_digest("second")
POLICY = digest_of(a_contract())


def judged_house() -> House:
    """Two versions; the first is champion, the second passed its gate against it."""
    house = a_house()
    with house.unit_of_work() as uow:
        uow.contracts.put(a_contract(), house.clock())
        uow.versions.put(a_version(digest=FIRST, registry_version="1"))
        uow.versions.put(a_version(digest=SECOND, number=2, registry_version="2"))
        uow.verdicts.put(a_verdict(1, candidate=FIRST, policy_digest=POLICY))
        uow.verdicts.put(a_verdict(2, candidate=SECOND, champion=FIRST, policy_digest=POLICY))
        uow.commit()
    promote.promote(house, TASK, digest=FIRST, actor="me", reason="first")
    return house


def report(house: House, *ready: str, **refused: str) -> None:
    with house.unit_of_work() as uow:
        uow.replicas.report(a_replica_report(ready=ready, refused=refused, reported_at=house.clock()))
        uow.commit()


def test_a_promotion_keeps_the_previous_champion_and_raises_the_generation() -> None:
    house = judged_house()
    done = promote.promote(house, TASK, digest=SECOND, actor="me", reason="better")
    with house.unit_of_work() as uow:
        assignment = uow.assignments.all()[TASK]
        assert verify(uow.ledger.entries()) == 2
    assert (assignment.champion, assignment.previous, assignment.generation) == (SECOND, FIRST, done.generation)
    assert done.generation > 1 and done.state == "warming"


def test_promoting_the_champion_again_changes_nothing() -> None:
    house = judged_house()
    one = promote.promote(house, TASK, digest=SECOND, actor="me", reason="better")
    assert promote.promote(house, TASK, digest=SECOND, actor="me", reason="again") == one


def test_of_two_promotions_from_one_generation_the_second_is_stale() -> None:
    house = judged_house()
    promote.promote(house, TASK, digest=SECOND, actor="a", reason="x", expected_generation=1)
    with pytest.raises(StaleGeneration):
        promote.promote(house, TASK, digest=SECOND, actor="b", reason="x", expected_generation=1)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"outcome": "fail"}, "'fail'"),
        ({"outcome": "need more"}, "'need more'"),
        ({"champion": a_digest("other")}, "champion changed"),
        ({"policy_digest": digest_of("edited")}, "contract changed"),
    ],
)
def test_a_verdict_that_does_not_fit_refuses(fields: dict[str, str], word: str) -> None:
    house = judged_house()
    given = {"champion": FIRST, "policy_digest": POLICY} | fields
    with house.unit_of_work() as uow:
        uow.verdicts.put(a_verdict(3, candidate=SECOND, **given))
        uow.commit()
    with pytest.raises(GateRefused) as refused:
        promote.promote(house, TASK, digest=SECOND, actor="me", reason="x")
    assert word in refused.value.message
    with house.unit_of_work() as uow:
        assert uow.assignments.all()[TASK].champion == FIRST


def test_an_expired_verdict_and_a_missing_one_refuse() -> None:
    house = judged_house()
    assert isinstance(house.clock, SteppedClock)
    house.clock.step(seconds=timedelta(days=8).total_seconds())
    with pytest.raises(GateRefused):
        promote.promote(house, TASK, digest=SECOND, actor="me", reason="x")
    with house.unit_of_work() as uow:
        uow.versions.put(a_version(digest=a_digest("third"), number=3))
        uow.commit()
    with pytest.raises(GateRefused):
        promote.promote(house, TASK, digest=a_digest("third"), actor="me", reason="x")


def test_rolling_back_returns_the_previous_champion_and_rolling_back_again_returns() -> None:
    house = judged_house()
    promote.promote(house, TASK, digest=SECOND, actor="me", reason="better")
    assert promote.roll_back(house, TASK, actor="me", reason="worse").digest == FIRST
    assert promote.roll_back(house, TASK, actor="me", reason="sorry").digest == SECOND


def test_the_first_champion_cannot_be_rolled_back() -> None:
    with pytest.raises(NotFound):
        promote.roll_back(judged_house(), TASK, actor="me", reason="x")


def test_the_table_follows_only_when_every_living_replica_is_ready() -> None:
    house = judged_house()
    assert roll_out.roll_out(house, silence_s=15).routes == {}
    report(house, FIRST)
    assert roll_out.roll_out(house, silence_s=15).routes[TASK].champion == FIRST
    promote.promote(house, TASK, digest=SECOND, actor="me", reason="better")
    assert roll_out.roll_out(house, silence_s=15).routes[TASK].champion == FIRST
    report(house, FIRST, SECOND)
    assert roll_out.roll_out(house, silence_s=15).routes[TASK].champion == SECOND
    with house.unit_of_work() as uow:
        assert [p.state for p in uow.promotions.of_task(TASK)] == ["live", "superseded"]


def test_a_version_a_replica_refuses_is_never_pointed_to_and_the_assignment_says_why() -> None:
    house = judged_house()
    report(house, FIRST)
    roll_out.roll_out(house, silence_s=15)
    promote.promote(house, TASK, digest=SECOND, actor="me", reason="better")
    report(house, FIRST, **{SECOND: "fingerprint differs"})
    for _ in range(3):
        assert roll_out.roll_out(house, silence_s=15).routes[TASK].champion == FIRST
    with house.unit_of_work() as uow:
        assert "fingerprint differs" in (uow.assignments.all()[TASK].stuck_reason or "")
        assert [e.kind for e in uow.ledger.entries()].count("roll_out.stuck") == 1


def test_a_silent_replica_counts_as_gone() -> None:
    house = judged_house()
    report(house, FIRST)
    assert isinstance(house.clock, SteppedClock)
    house.clock.step(seconds=60)
    assert roll_out.roll_out(house, silence_s=15).routes == {}


def test_an_alias_moved_by_hand_is_put_back_and_written_down() -> None:
    house = judged_house()
    assert roll_out.mirror(house)
    assert isinstance(house.registry, MemoryRegistry)
    house.registry.set_alias(TASK, "champion", "2")
    assert roll_out.mirror(house) == (f"{TASK}: alias champion was 2, is 1",)
    assert house.registry.aliases(TASK) == {"champion": "1"}
    assert roll_out.mirror(house) == ()
