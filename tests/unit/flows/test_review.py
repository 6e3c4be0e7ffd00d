"""Review: an alert without labelled evidence asks once, its answers are labels, and what they say decides whether it acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from holdfast.domain.alerts import Alert
from holdfast.domain.captures import LabelledCapture
from holdfast.domain.ids import ReviewId
from holdfast.domain.ledger import verify
from holdfast.domain.monitors import MonitorReading
from holdfast.domain.review import LIFE, LabelRequest
from holdfast.domain.tasks import MonitoringPolicy, RetrainingPolicy
from holdfast.errors import Conflict, DataInvalid, LabelUnknown, NotFound, RequestInvalid, StorageRefused
from holdfast.flows import review
from holdfast.flows.respond import respond
from holdfast.flows.watch import watch
from holdfast.ports import House
from holdfast.testing.builders import TASK, a_contract
from holdfast.testing.clock import SteppedClock
from holdfast.testing.memory_log import MemoryCaptureLog
from holdfast.testing.streams import a_stream, a_watched_house, crown, send

POLICY = RetrainingPolicy(min_labels=60)


class Scene:
    """A house whose inputs drifted while nobody labelled: its alert asks for labels."""

    def __init__(self, *, share_right: float = 0.3, policy: RetrainingPolicy = POLICY) -> None:
        contract = a_contract(monitoring=MonitoringPolicy(run_length_events=10_000), retraining=policy)
        self.house, self.digest = a_watched_house(contract)
        self.truth: dict[str, str] = {}
        self.look(a_stream(300, 1, digest=self.digest))
        self.alert = self.look(a_stream(300, 7, digest=self.digest, shift=6.0, share_right=share_right))

    def look(self, rows: Sequence[LabelledCapture] = (), *, labels: bool = False) -> Alert | None:
        """Rows come, and the loop looks."""
        self.truth |= {row.capture.capture_id: row.label.value for row in rows}
        send(self.house, rows, labels=labels)
        watch(self.house, TASK)
        return respond(self.house, TASK)

    @property
    def request(self) -> LabelRequest:
        """The newest request."""
        with self.house.unit_of_work() as uow:
            return uow.reviews.of_task(TASK)[0]

    def label(self, count: int) -> None:
        """A person who is always right answers so many rows."""
        for _ in range(count):
            row = self.request.next_row
            assert row is not None
            review.answer(self.house, self.request.request_id, row.capture_id, self.truth[row.capture_id], by="ann")

    def kinds(self) -> list[str]:
        """What the ledger tells of."""
        with self.house.unit_of_work() as uow:
            assert verify(uow.ledger.entries()) == uow.ledger.count()
            return [entry.kind for entry in uow.ledger.entries()]

    def retrainings(self) -> int:
        with self.house.unit_of_work() as uow:
            return len(uow.retrainings.of_task(TASK))


def test_an_alert_on_inputs_opens_one_review_however_often_one_looks() -> None:
    scene = Scene()
    assert scene.alert is not None and scene.alert.diagnosis.action == "ask for labels"
    assert "review: no row since the change is answered yet" in scene.alert.response
    first = scene.request
    assert (first.alert_id, first.asked_by, first.onset_seq) == (scene.alert.alert_id, "loop", scene.alert.onset_seq)
    assert {row.period for row in first.rows} == {"since", "before"}
    scene.look()
    scene.look(a_stream(60, 9, digest=scene.digest, shift=6.0))
    assert scene.request == first
    assert scene.kinds().count("review.opened") == 1


def test_answers_that_show_lost_quality_start_the_retraining_and_close_the_review() -> None:
    scene = Scene()
    scene.label(20)
    assert scene.look() is not None and scene.retrainings() == 0
    scene.label(80)
    alert = scene.look()
    assert alert is not None and alert.diagnosis.action == "retrain"
    assert scene.retrainings() == 1
    assert alert.diagnosis.evidence["review_loss_since"] > 0.5
    assert (scene.request.state, scene.request.closed_because) == ("closed", "its alert is being mended")
    assert scene.kinds()[-2:] == ["retraining.requested", "review.closed"]
    assert scene.look() == alert


def test_quality_that_holds_closes_the_review_and_nothing_is_trained() -> None:
    scene = Scene(share_right=0.97)
    scene.label(scene.request.open_count)
    alert = scene.look()
    assert alert is not None and alert.diagnosis.action == "wait"
    assert "does not hurt" in scene.request.closed_because
    assert scene.retrainings() == 0
    assert scene.look() == alert
    assert scene.kinds().count("review.opened") == 1


def test_a_review_that_is_answered_and_says_too_little_is_followed_by_another_when_the_traffic_has_doubled() -> None:
    scene = Scene(share_right=0.3, policy=RetrainingPolicy(min_labels=400))
    first = scene.request
    scene.label(first.open_count)
    alert = scene.look()
    assert alert is not None and alert.diagnosis.action == "retrain" and "more labels are needed" in alert.response
    assert (scene.request.state, scene.request.closed_because) == ("closed", "every row is answered")
    scene.look(a_stream(50, 8, digest=scene.digest, shift=6.0, share_right=0.3))
    assert scene.request.request_id == first.request_id
    alert = scene.look(a_stream(400, 9, digest=scene.digest, shift=6.0, share_right=0.3))
    assert alert is not None and alert.diagnosis.action == "retrain"
    assert (scene.request.state, scene.request.alert_id) == ("open", first.alert_id)
    assert scene.request.request_id != first.request_id
    scene.label(scene.request.open_count)
    scene.look()
    assert scene.retrainings() == 1


def test_an_upstream_break_asks_nobody() -> None:
    house, digest = a_watched_house(a_contract(monitoring=MonitoringPolicy(run_length_events=10_000)))
    send(house, a_stream(300, 1, digest=digest))
    broken = [replace(r, capture=replace(r.capture, text="")) for r in a_stream(300, 7, digest=digest, shift=6.0)]
    send(house, broken, labels=False)
    watch(house, TASK)
    alert = respond(house, TASK)
    assert alert is not None and alert.diagnosis.cause == "upstream break"
    with house.unit_of_work() as uow:
        assert uow.reviews.of_task(TASK) == ()


def test_labels_of_a_review_are_ordinary_labels_that_no_monitor_counts() -> None:
    scene = Scene()
    before = scene.house.log.label_count(TASK)
    quality = [r.event_count for r in _readings(scene.house) if r.monitor == "quality"]
    scene.label(30)
    scene.look()
    assert scene.house.log.label_count(TASK) == before + 30
    assert {row.label.source for row in scene.house.log.labelled_after(TASK, before)} == {"review"}
    assert [r.event_count for r in _readings(scene.house) if r.monitor == "quality"] == quality


def _readings(house: House) -> tuple[MonitorReading, ...]:
    with house.unit_of_work() as uow:
        assignment = uow.assignments.get(TASK)
        assert assignment is not None
        seen = uow.monitors.get(TASK, assignment.champion)
        assert seen is not None
        return seen.readings


def test_labels_that_come_with_the_traffic_answer_the_rows_they_belong_to() -> None:
    scene = Scene()
    row = next(row for row in scene.request.rows if row.period == "since")
    known = {r.capture.capture_id: r.label for r in a_stream(300, 7, digest=scene.digest, shift=6.0, share_right=0.3)}
    scene.house.log.label([known[row.capture_id]])
    scene.look(a_stream(5, 8, digest=scene.digest, shift=6.0))
    filled = scene.request.row(row.capture_id)
    assert (filled.value, filled.by, filled.turn) == (scene.truth[row.capture_id], "label of agents", 0)


def test_a_corrected_answer_is_the_newest_label_even_when_it_returns_to_the_first_value() -> None:
    scene = Scene()
    name = scene.request.rows[0].capture_id
    for value in ("billing", "returns", "billing"):
        review.answer(scene.house, scene.request.request_id, name, value, by="ann")
    row = scene.request.row(name)
    newest = {r.capture.capture_id: r.label.value for r in scene.house.log.labelled_since(TASK, row.seq)}
    assert newest[name] == row.value == "billing"


def test_taking_back_asks_again_and_skipping_leaves_no_label() -> None:
    scene = Scene()
    before, request_id = scene.house.log.label_count(TASK), scene.request.request_id
    first, second = scene.request.rows[:2]
    review.skip(scene.house, request_id, first.capture_id, by="ann")
    assert scene.house.log.label_count(TASK) == before
    assert scene.request.next_row == second
    review.take_back(scene.house, request_id)
    assert scene.request.next_row == first


def test_an_answer_that_is_none_of_the_labels_changes_nothing() -> None:
    scene = Scene()
    request = scene.request
    with pytest.raises(LabelUnknown):
        review.answer(scene.house, request.request_id, request.rows[0].capture_id, "nonsense", by="ann")
    with pytest.raises(NotFound):
        review.answer(scene.house, ReviewId("no"), request.rows[0].capture_id, "billing", by="ann")
    assert scene.request == request


def test_an_answer_is_not_counted_when_its_label_cannot_be_stored() -> None:
    scene = Scene()
    assert isinstance(scene.house.log, MemoryCaptureLog)
    scene.house.log.full = True
    with pytest.raises(StorageRefused, match="disk is full"):
        scene.label(1)
    assert scene.request.answered_count == 0


def test_a_table_is_taken_whole_or_not_at_all_and_every_wrong_line_is_named() -> None:
    scene = Scene()
    request = scene.request
    names = [row.capture_id for row in request.rows[:4]]
    bad = f"capture_id,label\n{names[0]},billing\n{names[1]},nonsense\nelsewhere,billing\n{names[2]},\n"
    with pytest.raises(DataInvalid, match=r"2 of its lines cannot be: line 3: .*'nonsense'.*; line 4: .*elsewhere") as refused:
        review.import_answers(scene.house, request.request_id, bad, by="ann")
    assert refused.value.fields["place"] == "line 3"
    assert scene.request == request
    good = f"capture_id,label\n{names[0]},billing\n{names[3]},returns\n"
    changed, count = review.import_answers(scene.house, request.request_id, good, by="ann")
    assert count == 2
    assert [changed.row(name).value for name in names] == ["billing", None, None, "returns"]
    again, _ = review.import_answers(scene.house, request.request_id, good, by="ann")
    assert again == changed


def test_a_review_ends_with_its_time_its_version_and_its_alert() -> None:
    late, overtaken, over = Scene(), Scene(), Scene()
    assert isinstance(late.house.clock, SteppedClock)
    late.house.clock.step(LIFE.total_seconds())
    late.look()
    assert late.request.state == "expired"
    crown(overtaken.house, "second")
    overtaken.look()
    assert overtaken.request.closed_because == "another version answers now"
    assert over.alert is not None
    with over.house.unit_of_work() as uow:
        uow.alerts.put(replace(over.alert, state="false alarm", resolved_at=over.house.clock()))
        uow.commit()
    over.look()
    assert over.request.closed_because == "its alert is closed (false alarm)"


def test_a_person_may_ask_without_any_alert_and_not_twice_at_once() -> None:
    house, digest = a_watched_house()
    send(house, a_stream(300, 1, digest=digest), labels=False)
    request = review.ask(house, TASK, row_count=50, actor="ann")
    assert (len(request.rows), request.alert_id, {row.period for row in request.rows}) == (50, None, {"since"})
    with pytest.raises(Conflict, match="open already"):
        review.ask(house, TASK, row_count=50, actor="bob")
    closed = review.close(house, request.request_id, actor="ann", reason="enough")
    assert closed.state == "closed"
    assert review.close(house, request.request_id, actor="bob", reason="again") == closed
    with pytest.raises(Conflict, match="enough"):
        review.answer(house, request.request_id, request.rows[0].capture_id, "billing", by="ann")


def test_what_cannot_be_asked_is_refused_with_the_reason() -> None:
    house, _ = a_watched_house()
    with pytest.raises(RequestInvalid, match="20 to 1000"):
        review.ask(house, TASK, row_count=5, actor="ann")
    with pytest.raises(NotFound, match="capture of the champion"):
        review.ask(house, TASK, row_count=50, actor="ann")


def test_a_request_of_a_person_holds_back_that_of_the_loop() -> None:
    house, digest = a_watched_house(a_contract(monitoring=MonitoringPolicy(run_length_events=10_000)))
    send(house, a_stream(300, 1, digest=digest))
    by_hand = review.ask(house, TASK, row_count=50, actor="ann")
    send(house, a_stream(300, 7, digest=digest, shift=6.0), labels=False)
    watch(house, TASK)
    alert = respond(house, TASK)
    assert alert is not None and alert.diagnosis.action == "ask for labels"
    with house.unit_of_work() as uow:
        assert uow.reviews.of_task(TASK) == (by_hand,)
