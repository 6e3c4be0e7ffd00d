"""What the audit of a data set finds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.audit import SHOWN, audit, inspect_examples
from holdfast.domain.datasets import Example
from holdfast.domain.records import to_plain
from holdfast.domain.tasks import TaskContract, parse_contract
from holdfast.errors import DataInvalid


def contract(**fields: object) -> TaskContract:
    """Two labels unless told otherwise."""
    return parse_contract({"task": "t", "labels": ["a", "b"], "floor": 0.8} | fields)


def rows(*pairs: tuple[str, str]) -> list[Example]:
    """Examples of (text, label)."""
    return [Example(text=text, label=label) for text, label in pairs]


def test_duplicates_are_counted_after_normalisation_and_conflicts_once_per_text() -> None:
    found = audit(rows(("One", "a"), ("one ", "a"), ("ＯＮＥ", "b"), ("two", "b")), contract())
    assert (found.row_count, found.text_count, found.duplicate_count, found.conflict_count) == (4, 2, 1, 1)
    assert any("more than one label" in warning for warning in found.warnings)


def test_an_open_contract_takes_new_labels() -> None:
    assert audit(rows(("x", "a"), ("y", "new")), contract(labels_open=True)).label_counts == {"a": 1, "new": 1}
    with pytest.raises(DataInvalid, match=r"'new' is not one of the contract.*row 2"):
        audit(rows(("x", "a"), ("y", "new")), contract())


def test_small_and_lopsided_classes_are_warned_of() -> None:
    found = audit(rows(*((f"t{n}", "a") for n in range(60)), ("z", "b"), ("y", "b")), contract())
    assert found.warnings[0] == "fewer than 10 rows: b (2)"
    assert found.warnings[1].startswith("imbalance: the largest class has 30 times")


def test_no_row_at_all_is_a_mistake() -> None:
    with pytest.raises(DataInvalid, match="there is no row"):
        audit([], contract())
    assert inspect_examples([], contract()).length is None


def test_the_count_of_mistakes_is_whole_though_only_the_first_are_listed() -> None:
    found = inspect_examples(rows(*(("", "a") for _ in range(500))), contract())
    assert (found.error_count, len(found.errors), found.empty_count, found.one_class) == (501, SHOWN, 500, True)
    with pytest.raises(DataInvalid, match="and 500 more mistake"):
        audit(rows(*(("", "a") for _ in range(500))), contract())


@given(st.lists(st.tuples(st.text(max_size=40), st.sampled_from(["a", "b", "c", ""])), max_size=30))
def test_any_data_is_either_audited_or_refused_with_a_place_and_the_audit_is_plain_json(pairs: list[tuple[str, str]]) -> None:
    found = inspect_examples(rows(*pairs), contract())
    json.dumps(to_plain(found))
    assert found.text_count + found.duplicate_count <= found.row_count + found.conflict_count
    if found.errors:
        with pytest.raises(DataInvalid):
            audit(rows(*pairs), contract())
    else:
        assert sum(found.label_counts.values()) == found.row_count
