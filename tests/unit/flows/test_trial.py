"""A trial: a challenger in shadow or as a canary, begun and ended without touching who is champion and how he came to be it."""

from __future__ import annotations

import pytest

from holdfast.domain.ledger import verify
from holdfast.domain.records import digest_of
from holdfast.domain.routing import choose
from holdfast.errors import BadInput, GateRefused, NotFound, StaleGeneration
from holdfast.flows import promote, roll_out, trial
from holdfast.ports import House
from holdfast.testing.builders import TASK, a_contract, a_digest, a_house, a_replica_report, a_verdict, a_version

FIRST, SECOND, THIRD = (a_digest(name) for name in ("first", "second", "third"))
POLICY = digest_of(a_contract())


def house_of() -> House:
    """The first version is champion and live, the second passed its gate against it, the third was never judged."""
    house = a_house()
    with house.unit_of_work() as uow:
        uow.contracts.put(a_contract(), house.clock())
        for number, digest in enumerate((FIRST, SECOND, THIRD), start=1):
            uow.versions.put(a_version(digest=digest, number=number))
        uow.verdicts.put(a_verdict(1, candidate=FIRST, policy_digest=POLICY))
        uow.verdicts.put(a_verdict(2, candidate=SECOND, champion=FIRST, policy_digest=POLICY))
        uow.commit()
    promote.promote(house, TASK, digest=FIRST, actor="me", reason="first")
    held(house, FIRST)
    roll_out.roll_out(house, silence_s=60)
    return house


def held(house: House, *digests: str, **refused: str) -> None:
    with house.unit_of_work() as uow:
        uow.replicas.report(a_replica_report(ready=digests, refused=refused, reported_at=house.clock()))
        uow.commit()


def begin(house: House, digest: str = SECOND, *, share: float = 0.0, shadow: bool = False, **more: int) -> None:
    trial.begin_trial(house, TASK, digest=digest, share_canary=share, shadow=shadow, actor="me", reason="see", **more)  # type: ignore[arg-type]


def test_a_canary_is_followed_once_every_replica_holds_it_and_the_champion_stays_champion() -> None:
    house = house_of()
    before = promote.promote(house, TASK, digest=FIRST, actor="me", reason="again")
    begin(house, share=1.0)
    assert roll_out.roll_out(house, silence_s=60).routes[TASK].challenger is None
    held(house, FIRST, SECOND)
    route = roll_out.roll_out(house, silence_s=60).routes[TASK]
    assert (choose(route, "r").digest, choose(route, "r").route, route.champion) == (SECOND, "canary", FIRST)
    with house.unit_of_work() as uow:
        assert uow.promotions.of_task(TASK) == (before,)
        assert before.state == "live"
        assert verify(uow.ledger.entries()) == uow.ledger.count()
    assert promote.promote(house, TASK, digest=FIRST, actor="me", reason="once more") == before


def test_a_shadow_needs_no_verdict_and_a_canary_needs_a_passing_one() -> None:
    house = house_of()
    with pytest.raises(GateRefused, match="no verdict"):
        begin(house, THIRD, share=0.1, shadow=True)
    begin(house, THIRD, shadow=True)
    held(house, FIRST, THIRD)
    route = roll_out.roll_out(house, silence_s=60).routes[TASK]
    assert (choose(route, "r").digest, choose(route, "r").shadow) == (FIRST, THIRD)


def test_the_end_of_a_trial_leaves_the_champion_alone_and_a_promotion_ends_it_too() -> None:
    house = house_of()
    begin(house, shadow=True)
    ended = trial.end_trial(house, TASK, actor="me", reason="seen")
    assert (ended.champion, ended.challenger, ended.shadow) == (FIRST, None, False)
    assert trial.end_trial(house, TASK, actor="me", reason="again") == ended
    begin(house, share=0.2)
    promote.promote(house, TASK, digest=SECOND, actor="me", reason="better")
    with house.unit_of_work() as uow:
        now = uow.assignments.all()[TASK]
    assert (now.champion, now.previous, now.challenger, now.share_canary) == (SECOND, FIRST, None, 0.0)


def test_a_challenger_that_a_replica_refuses_leaves_the_route_as_it_is_and_is_named() -> None:
    house = house_of()
    begin(house, shadow=True)
    held(house, FIRST, **{SECOND: "its bytes changed"})
    assert roll_out.roll_out(house, silence_s=60).routes[TASK].challenger is None
    with house.unit_of_work() as uow:
        assert "its bytes changed" in (uow.assignments.all()[TASK].stuck_reason or "")


def test_a_trial_that_makes_no_sense_is_refused() -> None:
    house = house_of()
    for share in (0.0, 1.5, -0.1):
        with pytest.raises(BadInput):
            begin(house, share=share)
    with pytest.raises(GateRefused, match="is the champion"):
        begin(house, FIRST, shadow=True)
    with pytest.raises(NotFound):
        begin(house, a_digest("nowhere"), shadow=True)
    with pytest.raises(StaleGeneration):
        begin(house, shadow=True, expected_generation=99)
