"""Record: labels are checked against the contract, captures are stored once."""

from __future__ import annotations

import pytest

from holdfast.errors import LabelUnknown, NotFound
from holdfast.flows.record import record_captures, record_labels
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
