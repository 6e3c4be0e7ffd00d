"""A retraining advances by short steps that a kill, a lost part or a second worker cannot spoil."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from holdfast.domain.alerts import Alert
from holdfast.domain.datasets import ReplayTrial, SuspectedRow, TaughtRows
from holdfast.domain.diagnosis import Diagnosis
from holdfast.domain.ids import AdapterDigest, RetrainingId
from holdfast.domain.records import digest_of
from holdfast.domain.retraining import Retraining, TrainingPlan, TrainingResult
from holdfast.domain.tasks import PromotionPolicy, RetrainingPolicy
from holdfast.errors import Conflict, LabelUnknown, NotFound, RetrainingHeld
from holdfast.flows import freeze, promote, retrain, roll_out
from holdfast.ports import House
from holdfast.testing.builders import LABELS, TASK, a_capture, a_contract, a_house, a_label, a_replica_report, an_example
from holdfast.testing.clock import SteppedClock
from holdfast.testing.record_builders import an_alert
from holdfast.testing.twins import CannedTrainer, ListDoorbell, MemoryRegistry


def house_with_data(count: int = 400, **policies: object) -> House:
    house = a_house()
    with house.unit_of_work() as uow:
        uow.contracts.put(a_contract(floor=0.5, **policies), house.clock())
        uow.commit()
    freeze.add_examples(house, TASK, [an_example(n) for n in range(count)], actor="test")
    return house


def run(house: House, retraining: Retraining, *, until: frozenset[str], steps: int = 40) -> Retraining:
    """Advance on a stepped clock until the retraining is in one of the states."""
    clock = house.clock
    assert isinstance(clock, SteppedClock)
    now = retraining
    for _ in range(steps):
        if now.state in until:
            return now
        after = retrain.advance(house, retraining.retraining_id, owner="w1")
        now = after or now
        clock.step(seconds=2)
    raise AssertionError(f"still {now.state} after {steps} steps: {now.error}")


def promoted_first(house: House) -> Retraining:
    first = run(house, retrain.request(house, TASK, reason="first", actor="me"), until=frozenset({"judged", "refused", "failed"}))
    done = retrain.advance(house, first.retraining_id, owner="w1") or first
    assert done.state == "judged", done.error
    assert done.candidate_digest is not None
    promote.promote(house, TASK, digest=done.candidate_digest, actor="me", reason="first")
    with house.unit_of_work() as uow:
        uow.replicas.report(a_replica_report(ready=(done.candidate_digest,), reported_at=house.clock()))
        uow.commit()
    roll_out.roll_out(house, silence_s=15)
    return done


def label_new_captures(house: House, count: int, champion: str) -> None:
    house.log.append([a_capture(n, text=f"a wholly new text {n}", adapter_digest=champion) for n in range(count)])
    house.log.label([a_label(n) for n in range(count)])


def test_a_first_training_waits_for_a_person_and_never_promotes_itself() -> None:
    house = house_with_data()
    done = promoted_first(house)
    assert done.champion_digest is None
    with house.unit_of_work() as uow:
        assert uow.assignments.all()[TASK].champion == done.candidate_digest


BROKEN = Diagnosis(cause="upstream break", action="wait", sentence="38% of recent inputs are empty, against 0% before")


def house_with_broken_inputs() -> tuple[House, Alert]:
    house = house_with_data()
    alert = an_alert(diagnosis=BROKEN, state="acknowledged", adapter_digest=promoted_first(house).candidate_digest)
    with house.unit_of_work() as uow:
        uow.alerts.put(alert)
        uow.commit()
    return house, alert


def test_a_training_asked_for_by_hand_is_refused_while_an_alert_says_that_the_inputs_come_broken() -> None:
    house, alert = house_with_broken_inputs()
    with pytest.raises(RetrainingHeld, match=r"38% of recent inputs are empty.*--anyway"):
        retrain.request(house, TASK, reason="by hand", actor="me")
    with house.unit_of_work() as uow:
        assert len(uow.retrainings.of_task(TASK)) == 1, "the first"
        uow.alerts.put(replace(alert, state="false alarm"))
        uow.commit()
    assert retrain.request(house, TASK, reason="by hand", actor="me").forced_over is None


def test_a_forced_training_says_so_in_the_ledger_and_in_the_lineage_of_its_versions() -> None:
    house, alert = house_with_broken_inputs()
    label_new_captures(house, 250, alert.adapter_digest)
    forced = retrain.request(house, TASK, reason="by hand", actor="me", key="k", anyway=True)
    assert forced.forced_over == alert.alert_id
    assert retrain.request(house, TASK, reason="by hand", actor="me", key="k") == forced, "asking again is asking once"
    done = run(house, forced, until=frozenset({"judged", "promoted", "refused"}))
    assert done.candidate_digest is not None
    with house.unit_of_work() as uow:
        asked = [json.loads(e.body) for e in uow.ledger.entries() if e.kind == "retraining.requested"]
        assert [body["forced_over"] for body in asked] == [None, alert.alert_id]
        assert uow.versions.get(done.candidate_digest).lineage.forced_over == alert.alert_id


def test_anyway_without_a_broken_input_forces_nothing() -> None:
    house = house_with_data()
    assert retrain.request(house, TASK, reason="first", actor="me", anyway=True).forced_over is None


def test_the_verdict_stands_in_the_ledger_with_the_digest_of_the_fingerprint_that_was_sealed() -> None:
    house = house_with_data()
    done = promoted_first(house)
    assert done.candidate_digest is not None
    with house.unit_of_work() as uow:
        given = [entry.body for entry in uow.ledger.entries() if entry.kind == "verdict.given"]
    assert [json.loads(body)["fingerprint"] for body in given] == [digest_of(house.adapters.fingerprint(done.candidate_digest))]


def test_a_retraining_with_a_passing_verdict_becomes_champion_by_itself() -> None:
    house = house_with_data()
    first = promoted_first(house)
    label_new_captures(house, 400, str(first.candidate_digest))
    asked = retrain.request(house, TASK, reason="drift", actor="loop", since_seq=1)
    done = run(house, asked, until=frozenset({"promoted", "refused", "failed"}))
    assert done.state == "promoted", done.error
    with house.unit_of_work() as uow:
        assignment = uow.assignments.all()[TASK]
        kinds = [entry.kind for entry in uow.ledger.entries()]
    assert (assignment.champion, assignment.previous) == (done.candidate_digest, first.candidate_digest)
    assert done.labels_used == 400
    assert kinds.count("verdict.given") == 2 and kinds.count("promotion.committed") == 2


def test_examples_brought_after_the_champion_are_trained_on_too() -> None:
    house = house_with_data()
    first = promoted_first(house)
    label_new_captures(house, 50, str(first.candidate_digest))
    assert isinstance(house.clock, SteppedClock)
    house.clock.step(seconds=5)
    freeze.add_examples(house, TASK, [an_example(n, text=f"brought later {n}") for n in range(30)], actor="me")
    asked = retrain.request(house, TASK, reason="more data", actor="me", since_seq=1)
    going = run(house, asked, until=frozenset({"training"}))
    assert going.snapshot_digest is not None
    texts = [row.text for row in house.snapshots.load(going.snapshot_digest)]
    assert sum(text.startswith("brought later") for text in texts) == 30 and len(texts) == len(set(texts)) == 400 + 50 + 30


def test_a_candidate_that_is_no_better_is_refused_and_the_champion_stays() -> None:
    house = house_with_data()
    first = promoted_first(house)
    trainer = house.trainer
    assert isinstance(trainer, CannedTrainer)
    label_new_captures(house, 400, str(first.candidate_digest))
    make = trainer.make
    assert callable(make)

    def no_better(plan: TrainingPlan) -> TrainingResult:
        result = make(plan)
        champion = result.scores[str(plan.champion_digest)]
        return replace(result, scores={d: replace(champion, digest=AdapterDigest(d)) for d in result.scores})

    trainer.make = no_better
    done = run(house, retrain.request(house, TASK, reason="drift", actor="loop", since_seq=1), until=frozenset({"promoted", "refused"}))
    assert done.state == "refused"
    with house.unit_of_work() as uow:
        assert uow.assignments.all()[TASK].champion == first.candidate_digest


def test_suggest_leaves_a_passing_candidate_to_a_person() -> None:
    house = house_with_data(promotion=PromotionPolicy(mode="suggest"))
    first = promoted_first(house)
    label_new_captures(house, 400, str(first.candidate_digest))
    done = run(house, retrain.request(house, TASK, reason="drift", actor="loop", since_seq=1), until=frozenset({"judged", "refused"}))
    after = retrain.advance(house, done.retraining_id, owner="w1")
    assert after is not None and after.state == "judged" and after.due_at > house.clock()


def test_a_candidate_nobody_promotes_is_refused_when_its_verdict_expires() -> None:
    house = house_with_data()
    asked = retrain.request(house, TASK, reason="first", actor="me")
    run(house, asked, until=frozenset({"judged"}))
    assert isinstance(house.clock, SteppedClock)
    house.clock.step(seconds=timedelta(days=8).total_seconds())
    after = retrain.advance(house, asked.retraining_id, owner="w1")
    assert after is not None and after.state == "refused" and "expired" in (after.error or "")


def test_asking_twice_with_one_key_is_asking_once() -> None:
    house = house_with_data()
    one = retrain.request(house, TASK, reason="x", actor="me", key="k")
    two = retrain.request(house, TASK, reason="x", actor="me", key="k")
    assert one.retraining_id == two.retraining_id


def test_a_second_retraining_while_one_is_under_way_is_a_conflict() -> None:
    house = house_with_data()
    retrain.request(house, TASK, reason="x", actor="me", key="k")
    with pytest.raises(Conflict):
        retrain.request(house, TASK, reason="x", actor="me", key="another")


def test_a_task_without_data_cannot_be_trained() -> None:
    house = a_house()
    with house.unit_of_work() as uow:
        uow.contracts.put(a_contract(), house.clock())
        uow.commit()
    with pytest.raises(NotFound):
        retrain.request(house, TASK, reason="x", actor="me")


def test_examples_with_a_label_outside_the_contract_are_refused_whole() -> None:
    house = house_with_data(10)
    with pytest.raises(LabelUnknown):
        freeze.add_examples(house, TASK, [an_example(1), an_example(2, label="nonsense")], actor="me")


def test_the_registry_away_delays_a_step_and_loses_nothing() -> None:
    house = house_with_data()
    registry = house.registry
    assert isinstance(registry, MemoryRegistry)
    registry.down = True
    asked = retrain.request(house, TASK, reason="first", actor="me")
    waiting = run(house, asked, until=frozenset({"trained"}))
    assert isinstance(house.clock, SteppedClock)
    for _ in range(3):
        house.clock.step(seconds=10)
        waiting = retrain.advance(house, asked.retraining_id, owner="w1") or waiting
    assert waiting.state == "trained" and "registry" in (waiting.error or "")
    registry.down = False
    assert run(house, waiting, until=frozenset({"judged"})).error is None


def test_a_training_that_dies_is_started_again_until_its_attempts_are_spent() -> None:
    house = house_with_data(retraining=RetrainingPolicy(max_attempts=2))
    trainer = house.trainer
    assert isinstance(trainer, CannedTrainer)
    asked = retrain.request(house, TASK, reason="first", actor="me")
    trainer.failing[asked.retraining_id] = "killed by signal 9"
    done = run(house, asked, until=frozenset({"failed"}))
    assert done.attempt == 2 and "killed by signal 9" in (done.error or "")


def test_a_worker_whose_lease_was_taken_over_writes_nothing() -> None:
    house = house_with_data()
    asked = retrain.request(house, TASK, reason="first", actor="me")
    assert isinstance(house.clock, SteppedClock)
    with house.unit_of_work() as uow:
        stale = uow.retrainings.claim(asked.retraining_id, owner="old", now=house.clock(), lease_s=30)
        uow.commit()
    assert stale is not None
    assert retrain.advance(house, asked.retraining_id, owner="new") is None, "the lease still lives"
    house.clock.step(seconds=31)
    assert retrain.advance(house, asked.retraining_id, owner="new") is not None
    assert retrain._let_go(house, stale, replace(stale, state="failed")) is None
    with house.unit_of_work() as uow:
        assert uow.retrainings.get(asked.retraining_id).state == "training"


def test_each_step_rings_for_the_next_and_an_unknown_id_is_an_error() -> None:
    house = house_with_data()
    retrain.request(house, TASK, reason="first", actor="me")
    assert isinstance(house.doorbell, ListDoorbell)
    assert house.doorbell.rings[-1][0] == "holdfast.advance_retraining"
    with pytest.raises(NotFound):
        retrain.advance(house, RetrainingId("rtr_nothing"), owner="w1")


def test_a_burst_of_wrong_labels_from_one_source_cannot_fill_the_training_set() -> None:
    house = house_with_data()
    first = promoted_first(house)
    champion = str(first.candidate_digest)
    house.log.append([a_capture(n, text=f"a wholly new text {n}", adapter_digest=champion) for n in range(3_000)])
    house.log.label([a_label(n, source="desk") for n in range(100)])
    house.log.label([a_label(n, source="robot", value=LABELS[0]) for n in range(100, 3_000)])
    done = run(house, retrain.request(house, TASK, reason="burst", actor="me"), until=frozenset({"judged", "promoted", "refused"}))
    assert done.snapshot_digest is not None
    rows = house.snapshots.load(done.snapshot_digest)
    sources = Counter(row.source for row in rows if row.period == "recent")
    assert (sources["desk"], sources["robot"]) == (100, 400)
    with house.unit_of_work() as uow:
        assert uow.snapshots.get(done.snapshot_digest).left_out.capped_by_source == {"robot": 2_500}


def test_a_text_held_out_for_a_version_never_trains_a_later_one_though_it_left_the_snapshot() -> None:
    house = house_with_data(retraining=RetrainingPolicy(max_rows=100, replay_share=0.0))
    first = promoted_first(house)
    sealed = freeze.sealed_texts(house, TASK)
    again = [f"{text}!" for text in sealed]
    house.log.append([a_capture(n, text=text, adapter_digest=str(first.candidate_digest)) for n, text in enumerate(again)])
    house.log.append([a_capture(n, text=f"a wholly new text {n}", adapter_digest=str(first.candidate_digest)) for n in range(1_000, 1_300)])
    house.log.label([a_label(n) for n in (*range(len(again)), *range(1_000, 1_300))])
    done = run(house, retrain.request(house, TASK, reason="more", actor="me"), until=frozenset({"judged", "promoted", "refused"}))
    assert done.snapshot_digest is not None
    learnt = {row.text for row in house.snapshots.load(done.snapshot_digest) if row.split != "holdout"}
    assert learnt
    assert learnt.isdisjoint(again)


def test_what_a_training_says_of_its_rows_stands_on_the_snapshot_and_in_the_ledger_once() -> None:
    house = house_with_data()
    assert isinstance(house.trainer, CannedTrainer)
    make = house.trainer.make
    assert callable(make)
    taught = TaughtRows(
        taught_count=7,
        suspected=(SuspectedRow(row_id=3, text="t", label="a", source="file", suggested="b", margin=0.9),),
        replay_share=0.5,
        replay_trials=(ReplayTrial(share=0.5, row_count=9, past_score=0.8, recent_score=0.7),),
    )
    house.trainer.make = lambda plan: replace(make(plan), taught=taught)
    done = promoted_first(house)
    assert done.snapshot_digest is not None
    with house.unit_of_work() as uow:
        assert uow.snapshots.get(done.snapshot_digest).taught == taught
        told = [json.loads(e.body) for e in uow.ledger.entries() if e.kind == "dataset.taught"]
    assert [(body["suspected"], body["replay_share"]) for body in told] == [([3], 0.5)]
