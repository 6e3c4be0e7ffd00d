"""Record: labels are checked against the contract, captures are stored once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.domain.captures import Feedback
from holdfast.domain.ids import CaptureId
from holdfast.errors import LabelUnknown, NotFound
from holdfast.flows.record import record_captures, record_feedback, record_labels
from holdfast.ports import House
from holdfast.testing.builders import a_house
from holdfast.testing.clock import NOON
from holdfast.testing.record_builders import TASK, a_capture, a_contract, a_label


def house_with(*, labels_open: bool = False) -> House:
    house = a_house()
    with house.unit_of_work() as work:
        work.contracts.put(a_contract(labels_open=labels_open), NOON)
        work.commit()
    record_captures(house.log, [a_capture(1), a_capture(2)])
    return house


def test_a_capture_sent_again_is_stored_once() -> None:
    house = house_with()
    assert record_captures(house.log, [a_capture(2), a_capture(3), a_capture(3)]) == 1
    assert record_captures(house.log, []) == 0


def test_a_label_outside_the_contract_is_refused_and_nothing_is_stored() -> None:
    house = house_with()
    with pytest.raises(LabelUnknown, match="refund"):
        record_labels(house, TASK, [a_label(1), a_label(2, value="refund")])
    assert record_labels(house, TASK, [a_label(1)]) == 1


def test_open_labels_let_a_new_class_in() -> None:
    assert record_labels(house_with(labels_open=True), TASK, [a_label(2, value="refund")]) == 1


def test_a_label_for_an_unknown_capture_is_refused() -> None:
    with pytest.raises(NotFound):
        record_labels(house_with(), TASK, [a_label(99)])


def test_labels_given_before_their_capture_is_known_are_stored_in_their_canonical_text_once_it_is() -> None:
    house = a_house()
    with house.unit_of_work() as work:
        work.contracts.put(replace(a_contract(), kind="extraction", labels=("city",)), NOON)
        work.commit()
    given = [
        Feedback(capture_id=CaptureId(name), task=TASK, value=value, source="person", given_at=NOON)
        for name, value in {"c-1": '{"city": "Oslo"}', "c-2": '{"city": "Bergen"}'}.items()
    ]
    assert {one.capture_id for one in record_feedback(house.unit_of_work, house.log, given).unmatched} == {"c-1", "c-2"}
    record_captures(house.log, [a_capture(1, capture_id="c-1", text="to Oslo"), a_capture(2, capture_id="c-2", text="to Oslo")])
    found = record_feedback(house.unit_of_work, house.log, given)
    assert (found.stored_count, [one.capture_id for one, _ in found.refused]) == (1, ["c-2"])
    assert house.log.labelled_since(TASK, 0)[0].label.value == '{"spans":[{"field":"city","start":3,"end":7,"text":"Oslo"}]}'
