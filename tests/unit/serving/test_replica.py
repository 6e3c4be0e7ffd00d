"""A replica follows the assignments, keeps what it has, and says what it holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from holdfast.domain.captures import Prediction
from holdfast.domain.ids import AdapterDigest, bare
from holdfast.domain.routing import ReplicaReport, route_of
from holdfast.errors import AdapterRefused
from holdfast.serving.replica import PROVE_S, REPORT_AFTER_S, TOLD_FOR_S, TRY_AGAIN_S, UNLOAD_AFTER_S, ReplicaWorker
from holdfast.testing.clock import NOON
from holdfast.testing.memory import MemoryDatabase
from holdfast.testing.record_builders import TASK, a_digest, an_assignment
from holdfast.testing.twins import EchoEngine


class Folders:
    """An adapter store that has everything but what is listed as missing."""

    def __init__(self) -> None:
        self.missing: set[str] = set()

    def folder(self, digest: AdapterDigest) -> Path:
        if digest in self.missing:
            raise AdapterRefused(folder=digest, reason="its bytes changed")
        return Path("/adapters") / digest


class Room:
    """A worker with its twins and a hand-moved clock."""

    def __init__(self) -> None:
        self.database, self.engine, self.folders, self.now = MemoryDatabase(), EchoEngine(), Folders(), 0.0
        self.worker = ReplicaWorker(
            replica_id="replica-1", unit_of_work=self.database.unit_of_work, adapters=self.folders, engine=self.engine,
            clock=lambda: NOON, monotonic=lambda: self.now,
        )  # fmt: skip
        self._generation = 0

    def assign(self, champion: str, previous: str | None = None) -> None:
        held = self._generation or None
        self._generation += 1
        digest = a_digest(previous) if previous else None
        with self.database.unit_of_work() as work:
            new = an_assignment(champion=a_digest(champion), previous=digest, generation=self._generation)
            work.assignments.put(new, expected_generation=held)
            work.commit()

    def report(self) -> ReplicaReport:
        with self.database.unit_of_work() as work:
            return work.replicas.live(NOON)[0]


@pytest.fixture
def room() -> Room:
    return Room()


def test_every_wanted_version_is_loaded_before_the_first_report(room: Room) -> None:
    room.assign("second", previous="first")
    room.worker.refresh()
    assert set(room.report().ready) == {a_digest("first"), a_digest("second")}
    assert room.report().generation == 1


def test_a_version_that_cannot_be_loaded_is_named_and_costs_the_others_nothing(room: Room) -> None:
    room.assign("first")
    room.worker.refresh()
    room.folders.missing.add(a_digest("broken"))
    room.assign("broken", previous="first")
    room.worker.refresh()
    assert room.report().ready == (a_digest("first"),)
    assert "its bytes changed" in room.report().refused[a_digest("broken")]
    assert room.worker.answer([(a_digest("first"), "hello there")])[0][0] == "hello"


def test_a_base_is_asked_without_any_adapter_being_loaded_for_it(room: Room) -> None:
    room.assign("first")
    room.worker.refresh()
    answers = room.worker.answer([(bare("minilm"), "hello there"), (a_digest("gone"), "x"), (a_digest("first"), "hello there")])
    assert [answer[0] for answer in answers if not isinstance(answer, str)] == ["", "x", "hello"]
    assert answers[0][3] == (4, 4)
    assert room.worker.failing is None


def test_the_confidence_of_each_label_goes_with_the_answer(room: Room) -> None:
    room.engine.rule = lambda digest, text: Prediction(label='["auth","net"]', confidence=0.75)
    room.assign("first")
    room.worker.refresh()
    [answer] = room.worker.answer([(a_digest("first"), "x")])
    assert (answer[0], answer[4]) == ('["auth","net"]', (0.75, 0.75))


def test_a_refused_version_is_tried_again_later_and_then_no_longer_named(room: Room) -> None:
    room.engine.refusing[a_digest("first")] = "the fingerprint differs"
    room.assign("first")
    room.worker.refresh()
    room.engine.refusing.clear()
    room.worker.refresh()
    assert room.report().ready == ()
    room.now += TRY_AGAIN_S + 1
    room.worker.refresh()
    assert (room.report().ready, room.report().refused) == ((a_digest("first"),), {})


def test_a_version_nobody_wants_is_let_go_only_after_the_grace(room: Room) -> None:
    room.assign("first")
    room.worker.refresh()
    room.assign("second")
    room.worker.refresh()
    assert room.engine.loaded() == {a_digest("first"), a_digest("second")}
    room.now += UNLOAD_AFTER_S + 1
    room.worker.refresh()
    assert room.engine.loaded() == {a_digest("second")}


def test_without_a_database_it_goes_on_answering_with_what_it_has(room: Room) -> None:
    room.assign("first")
    room.worker.refresh()
    room.database.down = True
    room.worker.refresh()
    assert room.worker.failing is not None
    assert room.worker.answer([(a_digest("first"), "hello")])[0][0] == "hello"


def test_a_row_for_an_unloaded_version_loads_it_and_one_for_an_unknown_version_fails_alone(room: Room) -> None:
    room.folders.missing.add(a_digest("gone"))
    asked = [(a_digest("late"), "one"), (a_digest("gone"), "two"), (a_digest("late"), "three")]
    first, second, third = room.worker.answer(asked)
    assert (first[0], third[0]) == ("one", "three")
    assert isinstance(second, str)
    assert "its bytes changed" in second


def test_embeddings_travel_as_little_endian_float16(room: Room) -> None:
    answer = room.worker.answer([(a_digest("first"), "hello")])[0]
    assert not isinstance(answer, str)
    assert np.frombuffer(answer[2], dtype="<f2").shape == (8,)


def test_an_unchanged_report_is_repeated_only_after_a_while(room: Room) -> None:
    written = []
    room.assign("first")
    real = room.database.unit_of_work

    def counted() -> object:
        written.append(1)
        return real()

    room.worker._unit_of_work = counted  # type: ignore[assignment]  # a counter in front of the real one
    room.worker.refresh()
    room.worker.refresh()
    assert len(written) == 3  # two reads, one report
    room.now += REPORT_AFTER_S
    room.worker.refresh()
    assert len(written) == 5
    assert room.report().replica_id == "replica-1"
    assert TASK == "tickets"


def test_a_version_that_fails_its_proof_is_loaded_anew_from_its_files_and_the_failure_is_told_for_a_while(room: Room) -> None:
    room.assign("second", previous="first")
    room.worker.refresh()
    room.engine.broken[a_digest("second")] = "its head is another one"
    room.now += PROVE_S
    for _ in range(2):  # one version is proved at a look
        room.worker.refresh()
    assert set(room.report().ready) == {a_digest("first"), a_digest("second")}
    assert "its head is another one" in room.report().lapsed[a_digest("second")]
    assert room.worker.answer([(a_digest("second"), "hello there")])[0][0] == "hello"
    room.now += TOLD_FOR_S
    room.worker.refresh()
    assert room.report().lapsed == {}


def test_a_version_that_fails_its_proof_and_cannot_be_loaded_anew_answers_nobody_while_the_one_before_goes_on(room: Room) -> None:
    room.assign("second", previous="first")
    room.worker.refresh()
    room.engine.broken[a_digest("second")] = "its head is another one"
    room.folders.missing.add(a_digest("second"))
    room.now += PROVE_S
    for _ in range(2):
        room.worker.refresh()
    assert room.report().ready == (a_digest("first"),)
    assert "its bytes changed" in room.report().refused[a_digest("second")]
    refused, answered = room.worker.answer([(a_digest("second"), "hello"), (a_digest("first"), "hello")])
    assert isinstance(refused, str) and "its bytes changed" in refused
    assert answered[0] == "hello"


def test_each_version_is_proved_once_in_a_period_one_at_a_look(room: Room) -> None:
    proved: list[AdapterDigest] = []
    real = room.engine.prove

    def counted(digest: AdapterDigest) -> None:
        proved.append(digest)
        real(digest)

    room.engine.prove = counted  # type: ignore[method-assign]  # a counter in front of the real one
    room.assign("second", previous="first")
    room.worker.refresh()
    assert proved == []  # loading proved them
    room.now += PROVE_S
    room.worker.refresh()
    assert len(proved) == 1
    for _ in range(3):
        room.worker.refresh()
    assert sorted(proved) == sorted([a_digest("first"), a_digest("second")])
    assert room.report().proved_at.keys() == {a_digest("first"), a_digest("second")}


def test_a_version_whose_weights_were_written_to_is_proved_before_its_next_answer(room: Room) -> None:
    room.assign("first")
    room.worker.refresh()
    room.engine.written.add(a_digest("first"))
    room.engine.broken[a_digest("first")] = "its LoRA is another one"
    room.folders.missing.add(a_digest("first"))
    answer = room.worker.answer([(a_digest("first"), "hello")])[0]
    assert isinstance(answer, str) and "its bytes changed" in answer


def test_an_answer_made_while_the_version_failed_its_proof_does_not_leave(room: Room) -> None:
    room.assign("first")
    room.worker.refresh()
    real = room.engine.rule

    def meanwhile(digest: AdapterDigest, text: str) -> object:
        room.engine.broken[digest] = "its LoRA is another one"
        room.now += PROVE_S
        room.worker._prove_oldest()  # the following thread, at the worst moment
        return real(digest, text)

    room.engine.rule = meanwhile  # type: ignore[assignment]
    answer = room.worker.answer([(a_digest("first"), "hello")])[0]
    assert isinstance(answer, str) and "its LoRA is another one" in answer
    room.engine.rule = real
    assert room.worker.answer([(a_digest("first"), "hello")])[0][0] == "hello"


def test_a_replica_on_which_no_version_passes_its_proof_asks_to_be_replaced(room: Room) -> None:
    room.assign("first")
    room.worker.start(3600.0)
    try:
        assert room.worker.ailing() is None
        room.engine.broken[a_digest("first")] = "the base under it is another one"
        room.engine.refusing[a_digest("first")] = "the base under it is another one"
        room.now += PROVE_S
        room.worker.refresh()
        assert "the base under it is another one" in str(room.worker.ailing())
    finally:
        room.worker.close()
    assert room.worker.ailing() == "the following thread ended"


def test_a_fresh_replica_holds_what_the_table_names_and_proved_it_before_its_first_report(room: Room) -> None:
    room.assign("third", previous="second")
    with room.database.unit_of_work() as work:
        work.assignments.publish(route_of(an_assignment(champion=a_digest("first"), generation=1)))
        work.commit()
    room.worker.refresh()
    assert set(room.report().ready) == {a_digest("first"), a_digest("second"), a_digest("third")}
    assert room.report().proved_at.keys() == set(room.report().ready)


def test_what_the_task_s_own_traffic_goes_to_is_pinned_and_what_is_asked_by_number_alone_is_not(room: Room) -> None:
    room.assign("second", previous="first")
    with room.database.unit_of_work() as work:
        work.assignments.publish(route_of(an_assignment(champion=a_digest("first"), challenger=a_digest("trial"), generation=1)))
        work.commit()
    room.worker.refresh()
    assert room.engine.pinned == {a_digest("first"), a_digest("trial"), a_digest("second")}
    with room.database.unit_of_work() as work:
        work.assignments.publish(route_of(an_assignment(champion=a_digest("second"), generation=2)))
        work.commit()
    room.worker.refresh()
    assert room.engine.pinned == {a_digest("second")}
    assert a_digest("first") in room.engine.loaded()
