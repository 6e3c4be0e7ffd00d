"""Every unit of work is one transaction, and its repositories keep the same rules whatever stands behind them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from holdfast.backends.sql import SqlDatabase
from holdfast.domain.ids import AlertId, PromotionId, RetrainingId, ReviewId, SnapshotDigest, TaskName, VerdictId
from holdfast.domain.ledger import verify
from holdfast.domain.review import answer, close
from holdfast.errors import AlreadyExists, Conflict, LeaseLost, NotFound, StaleGeneration
from holdfast.ports import UnitOfWork
from holdfast.testing.builders import (
    TASK,
    a_contract,
    a_digest,
    a_monitor_set,
    a_promotion,
    a_replica_report,
    a_report,
    a_retraining,
    a_route,
    a_snapshot,
    a_verdict,
    a_version,
    an_alert,
    an_assignment,
)
from holdfast.testing.clock import NOON
from holdfast.testing.memory import MemoryDatabase
from holdfast.testing.record_builders import a_label_request

Database = MemoryDatabase | SqlDatabase
OTHER = TaskName("other")


def committed(database: Database) -> UnitOfWork:
    """A unit of work for reading what was committed; the caller enters it."""
    return database.unit_of_work()


def test_what_is_committed_is_there_for_the_next(database: Database) -> None:
    with database.unit_of_work() as work:
        work.contracts.put(a_contract(), NOON)
        work.versions.put(a_version())
        work.alerts.put(an_alert())
        work.commit()
    with committed(database) as work:
        assert work.contracts.get(TASK) == a_contract()
        assert work.versions.get(a_digest()) == a_version()
        assert work.alerts.of_task(TASK) == (an_alert(),)


def test_leaving_without_commit_changes_nothing(database: Database) -> None:
    with database.unit_of_work() as work:
        work.contracts.put(a_contract(), NOON)
        work.ledger.append(at=NOON, kind="k", task=TASK, actor="a", body={})
    with committed(database) as work:
        assert work.contracts.all() == ()
        assert work.ledger.count() == 0


def test_an_exception_in_the_block_changes_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.unit_of_work() as work:
        work.contracts.put(a_contract(), NOON)
        raise ZeroDivisionError
    with committed(database) as work:
        assert work.contracts.all() == ()


def test_work_after_a_commit_needs_a_commit_of_its_own(database: Database) -> None:
    with database.unit_of_work() as work:
        work.contracts.put(a_contract(), NOON)
        work.commit()
        work.contracts.put(a_contract(floor=0.5), NOON)
        assert work.contracts.get(TASK).floor == 0.5
    with committed(database) as work:
        assert work.contracts.get(TASK).floor == 0.8


def test_a_unit_of_work_reads_what_it_wrote(database: Database) -> None:
    with database.unit_of_work() as work:
        work.retrainings.request(a_retraining())
        assert work.retrainings.get(a_retraining().retraining_id) == a_retraining()


def test_after_a_refusal_the_block_goes_on(database: Database) -> None:
    with database.unit_of_work() as work:
        work.alerts.put(an_alert())
        with pytest.raises(Conflict):
            work.alerts.put(replace(an_alert(), alert_id=AlertId("alr_other")))
        work.contracts.put(a_contract(), NOON)
        work.commit()
    with committed(database) as work:
        assert len(work.alerts.of_task(TASK)) == 1
        assert work.contracts.get(TASK)


def test_the_newest_contract_counts(database: Database) -> None:
    with database.unit_of_work() as work:
        work.contracts.put(a_contract(), NOON)
        work.contracts.put(a_contract(floor=0.5), NOON + timedelta(hours=1))
        work.contracts.put(a_contract(task=OTHER), NOON)
        assert [(c.task, c.floor) for c in work.contracts.all()] == [(OTHER, 0.8), (TASK, 0.5)]
        work.contracts.put(a_contract(), NOON + timedelta(hours=2))
        assert work.contracts.get(TASK).floor == 0.8


def test_what_is_not_there_is_not_found(database: Database) -> None:
    with database.unit_of_work() as work:
        for look in (
            lambda: work.contracts.get(TASK),
            lambda: work.versions.get(a_digest()),
            lambda: work.alerts.get(AlertId("no")),
            lambda: work.retrainings.get(RetrainingId("no")),
            lambda: work.snapshots.get(SnapshotDigest("no")),
            lambda: work.verdicts.get(VerdictId("no")),
            lambda: work.promotions.get(PromotionId("no")),
            lambda: work.reviews.get(ReviewId("no")),
            lambda: work.retrainings.save(a_retraining()),
            lambda: work.retrainings.claim(RetrainingId("no"), owner="a", now=NOON, lease_s=1),
            lambda: work.keys.revoke("no"),
        ):
            with pytest.raises(NotFound):
                look()
        assert work.versions.find(a_digest()) is None
        assert work.assignments.get(TASK) is None
        assert work.monitors.get(TASK, a_digest()) is None
        assert work.verdicts.newest_of(a_digest()) is None


def test_versions_come_by_number_and_are_replaced_by_digest(database: Database) -> None:
    with database.unit_of_work() as work:
        work.versions.put(a_version(digest=a_digest("second"), number=2))
        work.versions.put(a_version())
        work.versions.put(a_version(run_id="run-1"))
        assert [(v.number, v.run_id) for v in work.versions.of_task(TASK)] == [(1, "run-1"), (2, None)]
        work.versions.put(a_version(digest=a_digest("other"), task=TaskName("alpha"), number=7))
        assert [(v.task, v.number) for v in work.versions.all()] == [("alpha", 7), (TASK, 1), (TASK, 2)]


def test_two_adapters_cannot_have_the_same_number(database: Database) -> None:
    with database.unit_of_work() as work:
        work.versions.put(a_version())
        with pytest.raises(Conflict):
            work.versions.put(a_version(digest=a_digest("second")))


def test_an_assignment_is_replaced_only_at_its_generation(database: Database) -> None:
    with database.unit_of_work() as work:
        work.assignments.put(an_assignment(), expected_generation=None)
        with pytest.raises(StaleGeneration):
            work.assignments.put(an_assignment(generation=2), expected_generation=None)
        with pytest.raises(StaleGeneration):
            work.assignments.put(an_assignment(generation=2), expected_generation=7)
        work.assignments.put(an_assignment(generation=2, champion=a_digest("second")), expected_generation=1)
        assert work.assignments.all() == {TASK: an_assignment(generation=2, champion=a_digest("second"))}
        with pytest.raises(StaleGeneration):
            work.assignments.put(an_assignment(task=OTHER, generation=3), expected_generation=2)


def test_a_generation_is_given_once(database: Database) -> None:
    with database.unit_of_work() as work:
        assert [work.assignments.next_generation() for _ in range(2)] == [1, 2]
        work.assignments.put(an_assignment(generation=9), expected_generation=None)
        assert work.assignments.next_generation() == 10
        with pytest.raises(Conflict):
            work.assignments.put(an_assignment(task=OTHER, generation=9), expected_generation=None)
        work.commit()
    with committed(database) as work:
        assert work.assignments.next_generation() == 11


def test_an_assignment_that_moved_on_is_not_marked_stuck(database: Database) -> None:
    with database.unit_of_work() as work:
        work.assignments.mark_stuck(TASK, 1, "nobody is there")
        work.assignments.put(an_assignment(generation=2), expected_generation=None)
        work.assignments.mark_stuck(TASK, 1, "late")
        assert work.assignments.all()[TASK].stuck_reason is None
        work.assignments.mark_stuck(TASK, 2, "it refuses")
        assert work.assignments.all()[TASK].stuck_reason == "it refuses"
        work.assignments.mark_stuck(TASK, 2, None)
        assert work.assignments.get(TASK) == an_assignment(generation=2)


def test_the_routing_table_never_goes_back(database: Database) -> None:
    with database.unit_of_work() as work:
        assert work.assignments.table().generation == 0
        work.assignments.publish(a_route(generation=3))
        work.assignments.publish(a_route(generation=2, champion=a_digest("old")))
        work.assignments.publish(a_route(task=OTHER, generation=5, shadow=True, share_canary=0.25))
        table = work.assignments.table()
        assert table.generation == 5
        assert table.routes == {TASK: a_route(generation=3), OTHER: a_route(task=OTHER, generation=5, shadow=True, share_canary=0.25)}


def test_the_newest_word_of_living_replicas_counts(database: Database) -> None:
    with database.unit_of_work() as work:
        work.replicas.report(a_replica_report(replica_id="b"))
        work.replicas.report(a_replica_report(replica_id="a"))
        work.replicas.report(a_replica_report(replica_id="a", reported_at=NOON + timedelta(seconds=5), refused={a_digest("bad"): "NaN"}))
        work.replicas.report(a_replica_report(replica_id="gone", reported_at=NOON - timedelta(seconds=1)))
        assert [(r.replica_id, r.reported_at > NOON) for r in work.replicas.live(NOON)] == [("a", True), ("b", False)]
        assert work.replicas.live(NOON)[0].refused == {a_digest("bad"): "NaN"}


def test_monitors_are_saved_over_the_version_they_were_read_at(database: Database) -> None:
    with database.unit_of_work() as work:
        work.monitors.put(a_monitor_set())
        with pytest.raises(Conflict):
            work.monitors.put(a_monitor_set())
        read = work.monitors.get(TASK, a_digest())
        assert read == a_monitor_set(version=1)
        work.monitors.put(replace(a_monitor_set(), version=1, capture_cursor=50))
        with pytest.raises(Conflict):
            work.monitors.put(replace(a_monitor_set(), version=1, capture_cursor=60))
        assert work.monitors.get(TASK, a_digest()) == a_monitor_set(version=2, capture_cursor=50)
        assert work.monitors.get(OTHER, a_digest()) is None
        with pytest.raises(Conflict):
            work.monitors.put(a_monitor_set(task=OTHER, version=3))


def test_records_come_newest_first_and_of_one_instant_the_last_written_first(database: Database) -> None:
    with database.unit_of_work() as work:
        for number in (2, 1, 3):
            work.reports.put(a_report(number))
            work.alerts.put(an_alert(number, opened_at=NOON))
            work.retrainings.request(a_retraining(number))
            work.promotions.put(a_promotion(number))
            work.verdicts.put(a_verdict(number))
            work.snapshots.put(a_snapshot(digest=SnapshotDigest(a_digest(str(number))), created_at=NOON + timedelta(hours=number)))
        assert work.reports.of_task(TASK, 2) == (a_report(3), a_report(2))
        assert [a.alert_id for a in work.alerts.of_task(TASK)] == [an_alert(n).alert_id for n in (3, 1, 2)]
        assert work.retrainings.of_task(TASK) == tuple(a_retraining(n) for n in (3, 2, 1))
        assert work.promotions.of_task(TASK) == tuple(a_promotion(n) for n in (3, 2, 1))
        assert [s.digest for s in work.snapshots.of_task(TASK)] == [SnapshotDigest(a_digest(n)) for n in "321"]
        assert work.verdicts.newest_of(a_digest()) == a_verdict(3)
        assert work.reports.of_task(OTHER) == () == work.promotions.of_task(OTHER)


def test_records_are_read_as_they_were_written(database: Database) -> None:
    with database.unit_of_work() as work:
        work.verdicts.put(a_verdict())
        work.promotions.put(a_promotion(state="warming", live_at=None))
        work.promotions.put(a_promotion())
        work.snapshots.put(a_snapshot())
        assert work.verdicts.get(a_verdict().verdict_id) == a_verdict()
        assert work.promotions.get(a_promotion().promotion_id) == a_promotion()
        assert work.snapshots.get(a_snapshot().digest) == a_snapshot()


def test_a_cause_has_one_unresolved_alert(database: Database) -> None:
    first, second = an_alert(), an_alert(alert_id=AlertId("alr_second"), opened_at=NOON + timedelta(hours=1))
    with database.unit_of_work() as work:
        work.alerts.put(first)
        work.alerts.put(replace(first, state="acknowledged"))
        with pytest.raises(Conflict):
            work.alerts.put(second)
        work.alerts.put(replace(first, state="resolved"))
        work.alerts.put(second)
        with pytest.raises(Conflict):
            work.alerts.put(first)
        work.alerts.put(an_alert(2))
        assert work.alerts.unresolved() == (an_alert(2), second)


def test_asking_for_a_retraining_twice_is_asking_once(database: Database) -> None:
    with database.unit_of_work() as work:
        assert work.retrainings.request(a_retraining()) == a_retraining()
        assert work.retrainings.request(a_retraining(reason="again")) == a_retraining()
        assert work.retrainings.of_task(TASK) == (a_retraining(),)


def test_a_claim_takes_the_lease_and_raises_the_fence(database: Database) -> None:
    row, at = a_retraining(), a_retraining().due_at
    with database.unit_of_work() as work:
        work.retrainings.request(row)
        assert work.retrainings.claim(row.retraining_id, owner="a", now=at - timedelta(seconds=1), lease_s=30) is None
        claimed = work.retrainings.claim(row.retraining_id, owner="a", now=at, lease_s=30)
        assert claimed == replace(row, lease_owner="a", lease_until=at + timedelta(seconds=30), fence=1)
        assert work.retrainings.claim(row.retraining_id, owner="b", now=at + timedelta(seconds=29), lease_s=30) is None
        again = work.retrainings.claim(row.retraining_id, owner="b", now=at + timedelta(seconds=30), lease_s=30)
        assert again is not None
        assert (again.lease_owner, again.fence) == ("b", 2)


def test_a_save_under_an_old_fence_is_dropped(database: Database) -> None:
    row, at = a_retraining(), a_retraining().due_at
    with database.unit_of_work() as work:
        work.retrainings.request(row)
        old = work.retrainings.claim(row.retraining_id, owner="a", now=at, lease_s=1)
        new = work.retrainings.claim(row.retraining_id, owner="b", now=at + timedelta(seconds=2), lease_s=1)
        assert old is not None
        assert new is not None
        with pytest.raises(LeaseLost):
            work.retrainings.save(replace(old, state="failed"))
        work.retrainings.save(replace(new, state="training", lease_owner=None, lease_until=None))
        assert work.retrainings.get(row.retraining_id).state == "training"


def test_what_is_due_is_unended_due_and_free_oldest_first(database: Database) -> None:
    now = NOON + timedelta(minutes=10)
    with database.unit_of_work() as work:
        for number in range(1, 7):
            work.retrainings.request(a_retraining(number))
        work.retrainings.save(a_retraining(1, state="promoted"))
        work.retrainings.save(a_retraining(2, due_at=now + timedelta(seconds=1)))
        work.retrainings.save(a_retraining(3, lease_owner="a", lease_until=now + timedelta(seconds=1)))
        work.retrainings.save(a_retraining(4, lease_owner="a", lease_until=now))
        work.retrainings.save(a_retraining(6, state="judged"))
        due = [r.retraining_id for r in work.retrainings.due(now)]
        assert due == [a_retraining(n).retraining_id for n in (4, 5, 6)]
        assert work.retrainings.claim(a_retraining(1).retraining_id, owner="a", now=now, lease_s=1) is None


def test_the_ledger_chains_over_transactions(database: Database) -> None:
    for number in range(3):
        with database.unit_of_work() as work:
            work.ledger.append(at=NOON + timedelta(microseconds=number), kind="a.b", task=TASK, actor="me", body={"n": number, "é": [1.5]})
            work.ledger.append(at=NOON, kind="c", task="", actor="me", body={})
            work.commit()
    with committed(database) as work:
        assert verify(work.ledger.entries()) == work.ledger.count() == 6
        assert [e.seq for e in work.ledger.entries(after=2, limit=3)] == [3, 4, 5]
        assert work.ledger.entries()[2].body == '{"n":1,"é":[1.5]}'


def test_keys_are_valid_until_revoked_and_names_are_never_used_twice(database: Database) -> None:
    with database.unit_of_work() as work:
        work.keys.add(name="admin", key_hash="h1", created_at=NOON)
        work.keys.add(name="gateway", key_hash="h2", created_at=NOON)
        for name, key_hash in (("admin", "h3"), ("another", "h1")):
            with pytest.raises(AlreadyExists):
                work.keys.add(name=name, key_hash=key_hash, created_at=NOON)
        assert work.keys.valid() == {"h1": "admin", "h2": "gateway"}
        work.keys.revoke("admin")
        assert work.keys.valid() == {"h2": "gateway"}
        with pytest.raises(AlreadyExists):
            work.keys.add(name="admin", key_hash="h4", created_at=NOON)


def test_a_number_that_is_not_finite_is_never_stored(database: Database) -> None:
    with database.unit_of_work() as work:
        with pytest.raises(ValueError, match="JSON compliant"):
            work.reports.put(a_report(metrics={"drifted_share": float("nan")}))
        assert work.reports.of_task(TASK) == ()


def test_a_review_is_saved_over_the_version_that_was_read_and_over_no_older_one(database: Database) -> None:
    with database.unit_of_work() as work:
        work.reviews.put(a_label_request())
        work.commit()
    with committed(database) as work:
        stored = work.reviews.get(a_label_request().request_id)
        assert stored == replace(a_label_request(), version=1)
        assert work.reviews.open_of(TASK) == stored
        answered = answer(stored, stored.rows[0].capture_id, "billing", by="ann", at=NOON)
        work.reviews.put(answered)
        with pytest.raises(Conflict, match="changed by somebody else"):
            work.reviews.put(stored)
        assert work.reviews.get(stored.request_id) == replace(answered, version=2)


def test_a_task_has_one_open_review_at_most_and_keeps_the_closed_ones(database: Database) -> None:
    second = a_label_request(2, asked_at=NOON + timedelta(hours=1))
    with database.unit_of_work() as work:
        work.reviews.put(a_label_request())
        with pytest.raises(Conflict, match="is open already"):
            work.reviews.put(second)
        work.reviews.put(a_label_request(3, task=OTHER))
        first = work.reviews.get(a_label_request().request_id)
        work.reviews.put(close(first, state="closed", because="done", at=NOON))
        assert work.reviews.open_of(TASK) is None
        work.reviews.put(second)
        work.commit()
    with committed(database) as work:
        assert [r.request_id for r in work.reviews.of_task(TASK)] == [second.request_id, first.request_id]
        assert [r.state for r in work.reviews.of_task(TASK)] == ["open", "closed"]
        assert len(work.reviews.of_task(TASK, limit=1)) == 1
