"""Captures and labels come back in the order they came, once each, joined by capture id."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from holdfast.backends.sql import SqlDatabase
from holdfast.domain.captures import Capture, Prediction
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.errors import DataInvalid, NotFound
from holdfast.testing.builders import TASK, a_capture, a_label
from holdfast.testing.clock import NOON
from holdfast.testing.memory import MemoryDatabase

Database = MemoryDatabase | SqlDatabase
OTHER = TaskName("other")


def ids(captures: tuple[Capture, ...]) -> list[str]:
    return [capture.capture_id for capture in captures]


def test_a_capture_comes_back_as_it_was(database: Database) -> None:
    sent = a_capture(1, text="où est ma commande ? 📦\n", captured_at=NOON + timedelta(microseconds=7), slices={"b": "2", "a": "ü"})
    assert database.log().append([sent]) == 1
    (got,) = database.log().after(TASK, 0)
    assert got.seq >= 1
    for name in (
        "capture_id",
        "task",
        "text",
        "prediction",
        "adapter_digest",
        "generation",
        "route",
        "captured_at",
        "latency_ms",
        "slices",
    ):
        assert getattr(got, name) == getattr(sent, name), name
    assert got.embedding.dtype == np.float16
    assert np.array_equal(got.embedding, sent.embedding)


def test_a_capture_sent_twice_is_stored_once(database: Database) -> None:
    log = database.log()
    assert log.append([a_capture(1), a_capture(2), a_capture(1, text="again")]) == 2
    assert log.append([a_capture(2), a_capture(3)]) == 1
    assert log.append([]) == 0
    assert ids(log.after(TASK, 0)) == ["c-000001", "c-000002", "c-000003"]
    assert log.after(TASK, 0)[0].text == a_capture(1).text


def test_after_goes_on_from_a_seq_within_one_task(database: Database) -> None:
    log = database.log()
    log.append([a_capture(n, task=TASK if n % 2 else OTHER) for n in range(1, 11)])
    first = log.after(TASK, 0, limit=3)
    assert ids(first) == ["c-000001", "c-000003", "c-000005"]
    assert ids(log.after(TASK, first[-1].seq)) == ["c-000007", "c-000009"]
    assert log.after(TASK, log.last_seq(TASK)) == ()
    assert [c.seq for c in log.after(TASK, 0)] == sorted({c.seq for c in log.after(TASK, 0)})


def test_counts_and_last_seq_are_of_one_task(database: Database) -> None:
    log = database.log()
    assert (log.count(TASK), log.label_count(TASK), log.last_seq(TASK)) == (0, 0, 0)
    log.append([a_capture(1), a_capture(2), a_capture(3, task=OTHER)])
    assert log.tasks_of([a_capture(1).capture_id, a_capture(99).capture_id]) == {a_capture(1).capture_id: a_capture(1).task}
    assert log.tasks_of([]) == {}
    log.label([a_label(1)])
    assert (log.count(TASK), log.label_count(TASK), log.count(OTHER), log.label_count(OTHER)) == (2, 1, 1, 0)
    assert log.last_seq(TASK) == log.after(TASK, 0)[-1].seq < log.last_seq(OTHER)


def test_the_newest_come_in_order(database: Database) -> None:
    log = database.log()
    log.append([a_capture(n) for n in range(1, 6)])
    assert ids(log.newest(TASK, 2)) == ["c-000004", "c-000005"]
    assert ids(log.newest(TASK, 100)) == [f"c-00000{n}" for n in range(1, 6)]
    assert log.newest(TASK, 0) == () == log.newest(OTHER, 5)


def test_a_label_joins_its_capture(database: Database) -> None:
    log = database.log()
    log.append([a_capture(1), a_capture(2)])
    assert log.label([a_label(2, value="returns")]) == 1
    (row,) = log.labelled_after(TASK, 0)
    assert row.capture.capture_id == row.label.capture_id == "c-000002"
    assert (row.label.value, row.label.source, row.label.labelled_at, row.wrong) == ("returns", "agents", a_label(2).labelled_at, True)
    assert np.array_equal(row.capture.embedding, a_capture(2).embedding)


def test_the_same_label_again_is_not_new(database: Database) -> None:
    log = database.log()
    log.append([a_capture(1)])
    assert log.label([a_label(1), a_label(1)]) == 1
    assert log.label([a_label(1, labelled_at=NOON)]) == 0
    assert log.label([a_label(1, source="customer"), a_label(1, value="billing")]) == 2
    assert log.label([]) == 0
    assert log.label_count(TASK) == 3


def test_labels_come_in_the_order_they_came_and_late_ones_are_not_missed(database: Database) -> None:
    log = database.log()
    log.append([a_capture(n) for n in range(1, 5)])
    log.label([a_label(3), a_label(1)])
    seen = log.labelled_after(TASK, 0)
    log.label([a_label(2), a_label(3, value="billing")])
    later = log.labelled_after(TASK, seen[-1].label.seq)
    assert [r.label.capture_id for r in seen] == ["c-000003", "c-000001"]
    assert [(r.label.capture_id, r.label.value) for r in later] == [("c-000002", "delivery"), ("c-000003", "billing")]
    assert len(log.labelled_after(TASK, 0, limit=3)) == 3


def test_labelled_since_gives_each_capture_once_with_its_newest_label(database: Database) -> None:
    log = database.log()
    log.append([a_capture(n, task=OTHER if n == 4 else TASK) for n in range(1, 7)])
    log.label([a_label(5), a_label(2), a_label(1), a_label(4, task=OTHER)])
    log.label([a_label(2, value="billing", labelled_at=NOON)])
    since = log.after(TASK, 0)[1].seq
    rows = log.labelled_since(TASK, since)
    assert [(r.capture.capture_id, r.label.value) for r in rows] == [("c-000002", "billing"), ("c-000005", "delivery")]
    assert len(log.labelled_since(TASK, 0)) == 3


def test_a_label_of_an_unknown_capture_refuses_all_of_its_call(database: Database) -> None:
    log = database.log()
    log.append([a_capture(1), a_capture(2)])
    for bad in (a_label(9), a_label(2, task=OTHER)):
        with pytest.raises(NotFound, match=f"no capture '{bad.capture_id}'"):
            log.label([a_label(1), bad])
    assert log.label_count(TASK) == 0


def test_shadow_copies_are_in_the_log_and_are_not_counted(database: Database) -> None:
    log = database.log()
    copy = a_capture(2, capture_id=CaptureId("c-000001~shadow"), route="shadow")
    log.append([a_capture(1), copy, a_capture(3, route="canary"), a_capture(4, route="shadow", task=OTHER)])
    assert log.count(TASK) == 2
    assert [c.capture_id for c in log.newest(TASK, 3)][1] == copy.capture_id


@pytest.mark.parametrize("text", ["nul \x00 inside", "half a pair \ud83d"])
def test_a_text_no_database_can_hold_refuses_all_of_its_call(database: Database, text: str) -> None:
    log = database.log()
    with pytest.raises(DataInvalid, match="c-000002"):
        log.append([a_capture(1), a_capture(2, text=text)])
    assert log.count(TASK) == 0
    log.append([a_capture(1)])
    with pytest.raises(DataInvalid):
        log.label([a_label(1, value=text)])


def test_a_number_that_is_not_finite_refuses_all_of_its_call(database: Database) -> None:
    log = database.log()
    bad = a_capture(2, prediction=Prediction(label="billing", confidence=float("nan")))
    with pytest.raises(DataInvalid, match="c-000002"):
        log.append([a_capture(1), bad])
    assert log.count(TASK) == 0


def test_a_thousand_captures_are_one_call(database: Database) -> None:
    log = database.log()
    rows = [a_capture(n, capture_id=CaptureId(f"bulk-{n}")) for n in range(1_000)]
    assert log.append(rows) == 1_000
    assert log.label([a_label(1, capture_id=row.capture_id) for row in rows]) == 1_000
    assert len(log.labelled_since(TASK, 0)) == 1_000


def test_texts_are_those_of_the_asked_captures_of_the_task(database: Database) -> None:
    log = database.log()
    log.append([a_capture(1, text="one"), a_capture(2, text="two"), a_capture(3, text="three", task=OTHER)])
    first, _, third = (a_capture(n).capture_id for n in (1, 2, 3))
    assert log.texts(TASK, [first, third, CaptureId("nobody")]) == {first: "one"}
    assert log.texts(TASK, []) == {}


def sent(producer: str, number: int) -> Capture:
    """A capture with the number that its producer gave it."""
    capture = a_capture(number, capture_id=CaptureId(f"{producer}-{number}"), captured_at=NOON + timedelta(seconds=number))
    return replace(capture, producer=producer, number=number)


def test_the_numbers_of_a_producer_are_noted_with_its_captures_whatever_their_order(database: Database) -> None:
    log = database.log()
    assert log.producers() == ()
    numbered = [sent("p", n) for n in range(1, 8)]
    log.append([numbered[0], numbered[2], numbered[6]])
    log.append([a_capture(9)])
    assert [(p.producer, p.seen, p.last_at) for p in log.producers()] == [("p", ((1, 1), (3, 3), (7, 7)), NOON + timedelta(seconds=7))]
    log.append([sent("o", 1), numbered[1], numbered[0]])
    first, second = log.producers()
    assert (first.producer, first.missing_count) == ("o", 0)
    assert (second.seen, second.missing, second.missing_count) == (((1, 3), (7, 7)), ((4, 6),), 3)
    assert (log.after(TASK, 0)[0].producer, log.after(TASK, 0)[0].number) == ("", 0)


def test_a_call_that_is_refused_notes_no_number(database: Database) -> None:
    log = database.log()
    with pytest.raises(DataInvalid):
        log.append([sent("p", 1), replace(sent("p", 2), text="\x00")])
    assert log.producers() == ()
