"""A champion that replicas refuse raises an alert without any monitor, and the version before takes over."""

from __future__ import annotations

from holdfast.domain.records import digest_of
from holdfast.domain.tasks import PromotionPolicy
from holdfast.flows import promote, respond, roll_out
from holdfast.ports import House
from holdfast.testing.builders import TASK, a_contract, a_digest, a_house, a_replica_report, a_verdict, a_version

FIRST, SECOND = a_digest("first"), a_digest("second")


def house_on_second(policy: PromotionPolicy | None = None) -> House:
    """A house whose champion is SECOND, with FIRST before it."""
    house, contract = a_house(), a_contract(promotion=policy or PromotionPolicy())
    with house.unit_of_work() as uow:
        uow.contracts.put(contract, house.clock())
        for number, (digest, champion) in enumerate([(FIRST, None), (SECOND, FIRST)], start=1):
            uow.versions.put(a_version(digest=digest, number=number))
            uow.verdicts.put(a_verdict(number, candidate=digest, champion=champion, policy_digest=digest_of(contract)))
        uow.commit()
    for digest in (FIRST, SECOND):
        promote.promote(house, TASK, digest=digest, actor="me", reason="test")
    return house


def refuse(house: House, *ready: str) -> None:
    with house.unit_of_work() as uow:
        uow.replicas.report(a_replica_report(ready=ready, refused={SECOND: "fingerprint differs"}, reported_at=house.clock()))
        uow.commit()


def champion(house: House) -> str:
    with house.unit_of_work() as uow:
        return str(uow.assignments.all()[TASK].champion)


def test_a_refused_champion_is_an_alert_and_is_rolled_back_once() -> None:
    house = house_on_second()
    refuse(house, FIRST)
    alert = respond.respond(house, TASK)
    assert alert is not None and (alert.diagnosis.cause, alert.diagnosis.action) == ("serving regression", "roll back")
    assert "fingerprint differs" in alert.diagnosis.sentence
    assert champion(house) == FIRST
    assert respond.respond(house, TASK) is None
    with house.unit_of_work() as uow:
        assert [a.state for a in uow.alerts.of_task(TASK)] == ["resolved"]
        assert [e.kind for e in uow.ledger.entries()].count("rollback.committed") == 1


def test_without_a_loaded_version_before_it_the_champion_stays_and_one_alert_is_open() -> None:
    house = house_on_second()
    refuse(house)
    first, again = respond.respond(house, TASK), respond.respond(house, TASK)
    assert first is not None and again is not None and first.alert_id == again.alert_id
    assert champion(house) == SECOND


def test_a_policy_that_only_suggests_leaves_the_rollback_to_a_person() -> None:
    house = house_on_second(PromotionPolicy(mode="suggest"))
    refuse(house, FIRST)
    assert respond.respond(house, TASK) is not None
    assert champion(house) == SECOND


def report(house: House, replica_id: str, *ready: str, **said: dict[str, str]) -> None:
    with house.unit_of_work() as uow:
        uow.replicas.report(a_replica_report(replica_id=replica_id, ready=ready, reported_at=house.clock(), **said))
        uow.commit()


def make_live(house: House) -> None:
    report(house, "replica-1", FIRST, SECOND)
    roll_out.roll_out(house, silence_s=15.0)


def test_a_live_champion_that_one_of_two_replicas_refuses_is_an_alert_and_the_other_goes_on_answering() -> None:
    house = house_on_second()
    make_live(house)
    report(house, "replica-2", FIRST, refused={SECOND: "its head is another one"})
    alert = respond.respond(house, TASK)
    assert alert is not None and "1 of 2 replicas refuse the champion: its head is another one" in alert.diagnosis.sentence
    assert champion(house) == SECOND


def test_a_live_champion_that_no_replica_holds_is_rolled_back() -> None:
    house = house_on_second()
    make_live(house)
    report(house, "replica-1", FIRST, refused={SECOND: "its head is another one"})
    respond.respond(house, TASK)
    assert champion(house) == FIRST


def test_a_proof_that_failed_and_was_mended_by_loading_anew_still_is_an_alert() -> None:
    house = house_on_second()
    make_live(house)
    report(house, "replica-1", FIRST, SECOND, lapsed={SECOND: "its LoRA is another one"})
    alert = respond.respond(house, TASK)
    assert alert is not None and alert.diagnosis.cause == "serving regression"
    assert "1 of 1 replicas loaded the champion anew, it failed its proof: its LoRA is another one" in alert.diagnosis.sentence
    assert champion(house) == SECOND
