"""Answers of every kind as one text."""

from __future__ import annotations

import pytest

from holdfast.domain.adapters import Manifest, adapter_digest
from holdfast.domain.answers import Span, kind_of, label_counts, labels_in, labels_value, matches, row_score, spans_in, spans_value
from holdfast.domain.ids import TaskName
from holdfast.domain.records import digest_of, to_plain

OSLO = spans_value([Span(field="city", start=3, end=7, text="Oslo")])
BOTH = spans_value([Span(field="day", start=8, end=13, text="today"), Span(field="city", start=3, end=7, text="Oslo")])


def test_equal_answers_are_equal_texts_in_whatever_order_they_were_given() -> None:
    assert labels_value(["b", "a", "b"]) == labels_value(["a", "b"])
    assert spans_in(BOTH)[0].field == "city"


@pytest.mark.parametrize("text", ["refund", "[urgent] refund", '["a", "b"]', '["b","a"]', '["a",1]', '{"spans":[1]}', "[" * 5_000, ""])
def test_what_is_not_canonical_is_a_single_label(text: str) -> None:
    assert kind_of(text) == "classification"
    assert labels_in(text) == (text,)


def test_an_empty_set_and_no_spans_are_different_answers_of_known_kinds() -> None:
    assert kind_of(labels_value([])) == "multi-label"
    assert kind_of(spans_value([])) == "extraction"
    assert labels_in(spans_value([])) == ()


def test_a_span_counts_only_with_its_field_and_both_ends() -> None:
    shifted = spans_value([Span(field="city", start=2, end=7, text=" Oslo")])
    assert row_score(OSLO, OSLO, "f1") == 1.0
    assert row_score(shifted, OSLO, "f1") == 0.0
    assert row_score(OSLO, BOTH, "f1") == pytest.approx(2 / 3)
    assert matches(OSLO, BOTH) == (1, 1, 2)


def test_counts_are_of_rows_that_hold_a_label() -> None:
    assert label_counts(['["a","b"]', '["a"]', "c", BOTH]) == {"a": 2, "b": 1, "c": 1, "city": 1, "day": 1}


def test_an_adapter_from_before_there_were_kinds_keeps_its_name() -> None:
    manifest = Manifest(task=TaskName("t"), rung="head", base="b", base_digest="sha256:0", labels=("a",), max_tokens=8, files={})
    plain = to_plain(manifest)
    assert isinstance(plain, dict)
    before = {name: value for name, value in plain.items() if name != "kind"}
    assert adapter_digest(manifest) == digest_of(before)
