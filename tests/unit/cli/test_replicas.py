"""What `status` and `doctor` say of the replicas."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from holdfast.cli.replicas import ReplicaLine, replica_lines, replica_troubles
from holdfast.domain.routing import route_of
from holdfast.settings import Serving, Settings
from holdfast.testing.memory import MemoryDatabase
from holdfast.testing.record_builders import a_digest, a_replica_report, an_assignment

NEW, OLD = a_digest("new"), a_digest("old")
TWO = Settings(serving=Serving(replica_count=2, prove_s=60.0))


def lines(*reports: Mapping[str, object]) -> tuple[ReplicaLine, ...]:
    """Of a database in which NEW is champion after OLD, and replicas said this."""
    database, now = MemoryDatabase(), datetime.now(UTC)
    with database.unit_of_work() as work:
        assignment = an_assignment(champion=NEW, previous=OLD)
        work.assignments.put(assignment, expected_generation=None)
        work.assignments.publish(route_of(assignment))
        for number, fields in enumerate(reports):
            given = {"replica_id": f"r{number}", "ready": (NEW, OLD), "proved_at": {NEW: now, OLD: now}, "reported_at": now, **fields}
            work.replicas.report(a_replica_report(**given))
        work.commit()
    with database.unit_of_work() as work:
        return replica_lines(work, TWO)


def test_two_complete_replicas_are_no_trouble() -> None:
    both = lines({}, {})
    assert [(line.replica, line.held_count, line.wanted_count) for line in both] == [("r0", 2, 2), ("r1", 2, 2)]
    assert replica_troubles(both, TWO) == ()


def test_a_silent_replica_is_missed() -> None:
    found = replica_troubles(lines({}, {"reported_at": datetime.now(UTC) - timedelta(minutes=5)}), TWO)
    assert found == ("1 of 2 replicas report; see the log of the gateway",)


def test_a_refusal_and_a_failed_proof_are_told_with_their_reason() -> None:
    refusing = {"ready": (OLD,), "proved_at": {OLD: datetime.now(UTC)}, "refused": {NEW: "its head is another one"}}
    found = replica_troubles(lines(refusing, {"lapsed": {OLD: "its LoRA is another one"}}), TWO)
    assert len(found) == 2
    assert "refuses" in found[0] and "its head is another one" in found[0]
    assert "failed its proof" in found[1] and "its LoRA is another one" in found[1]


def test_a_replica_that_lacks_a_version_or_proves_none_any_more_is_told_of() -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=10)
    found = replica_troubles(lines({"ready": (OLD,)}, {"proved_at": {NEW: datetime.now(UTC), OLD: long_ago}}), TWO)
    assert found == ("replica r0 holds 1 of 2 versions", f"replica r1 has not proved a version since {long_ago:%H:%M:%S} UTC")
