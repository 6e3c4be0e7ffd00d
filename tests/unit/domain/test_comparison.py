"""Decisions of two policies side by side."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.comparison import Decision, DecisionKind, check_comparable, pair
from holdfast.errors import DataInvalid
from holdfast.testing.clock import NOON
from holdfast.testing.record_builders import a_contract

KINDS: tuple[DecisionKind, ...] = ("alert", "retraining requested", "verdict")


def decision(event: int, kind: DecisionKind = "alert", said: str = "") -> Decision:
    return Decision(kind=kind, said=said, event_index=event, at=NOON)


decisions = st.lists(st.builds(decision, st.integers(0, 500), st.sampled_from(KINDS), st.sampled_from(["pass", "fail"])), max_size=8)


@given(found=decisions)
def test_decisions_beside_themselves_are_all_the_same(found: list[Decision]) -> None:
    assert [p.words for p in pair(found, found, within=100)] == ["same"] * len(found)


@given(a=decisions, b=decisions)
def test_every_decision_stands_in_the_table_once(a: list[Decision], b: list[Decision]) -> None:
    pairs = pair(a, b, within=100)
    assert Counter(p.a for p in pairs if p.a) == Counter(a)
    assert Counter(p.b for p in pairs if p.b) == Counter(b)
    assert all(p.a.kind == p.b.kind and abs(p.distance or 0) <= 100 for p in pairs if p.a and p.b)


def test_a_later_decision_says_by_how_many_events_and_a_far_one_is_another() -> None:
    near, far = pair([decision(100)], [decision(130)], within=50), pair([decision(100)], [decision(200)], within=50)
    assert [(p.words, p.distance) for p in near] == [("B 30 events later", 30)]
    assert [p.words for p in far] == ["only in A", "only in B"]


def test_the_nearest_of_one_kind_are_paired() -> None:
    pairs = pair([decision(100), decision(200)], [decision(195)], within=150)
    assert [p.words for p in pairs] == ["only in A", "B 5 events earlier"]


def test_other_content_at_the_same_event_is_told() -> None:
    assert pair([decision(7, "verdict", "pass")], [decision(7, "verdict", "fail")], within=9)[0].words == "at the same event, other content"


@pytest.mark.parametrize(("field", "value"), [("task", "others"), ("labels", ("billing", "delivery")), ("kind", "multi-label")])
def test_contracts_of_two_tasks_are_refused_with_the_place(field: str, value: object) -> None:
    with pytest.raises(DataInvalid, match=f"differ in {field}"):
        check_comparable(a_contract(), a_contract(**{field: value}), sources=("a.yaml", "b.yaml"))


def test_policies_of_one_task_may_differ_in_everything_else() -> None:
    check_comparable(a_contract(floor=0.1), a_contract(floor=0.9, labels=a_contract().labels[::-1]), sources=("a", "b"))
