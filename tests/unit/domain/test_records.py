"""Records become plain values and come back, and a digest names a value by its content."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.records import canonical, digest_of, from_plain, to_plain
from holdfast.domain.retraining import TrainingPlan, TrainingResult
from holdfast.testing import builders as make
from holdfast.testing.memory import MemoryAdapterStore


@dataclass(frozen=True)
class Leaf:
    name: str
    at: datetime
    share: float = 0.5
    note: str | None = None


@dataclass(frozen=True)
class Tree:
    leaves: tuple[Leaf, ...]
    by_name: dict[str, Leaf] = field(default_factory=dict)
    grid: tuple[tuple[float, ...], ...] = ()
    best: Leaf | None = None


texts = st.text(st.characters(codec="utf-8"), max_size=20)
floats = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.builds(Leaf, name=texts, at=st.datetimes(timezones=st.just(UTC)), share=floats, note=st.none() | texts)
trees = st.builds(
    Tree,
    leaves=st.lists(leaves, max_size=3).map(tuple),
    by_name=st.dictionaries(texts, leaves, max_size=3),
    grid=st.lists(st.lists(floats, max_size=3).map(tuple), max_size=3).map(tuple),
    best=st.none() | leaves,
)


@given(trees)
def test_a_record_comes_back_from_its_plain_form_and_from_its_json(tree: Tree) -> None:
    assert from_plain(Tree, to_plain(tree)) == tree
    assert from_plain(Tree, json.loads(canonical(tree))) == tree


@given(trees, trees)
def test_records_have_the_same_digest_exactly_when_their_canonical_forms_are_the_same(one: Tree, two: Tree) -> None:
    assert (digest_of(one) == digest_of(two)) == (canonical(one) == canonical(two))


def test_every_record_of_the_house_comes_back() -> None:
    plan = make.a_plan()
    rows = [make.a_snapshot_row(n) for n in range(20)]
    result = make.a_training_result(plan, MemoryAdapterStore(), rows)
    records = (
        make.a_contract(), make.a_version(), make.an_assignment(), make.a_route(), make.a_replica_report(refused={"d": "NaN"}),
        make.a_monitor_set(), make.a_report(), make.an_alert(), make.a_retraining(), make.a_verdict(), make.a_promotion(),
        make.a_snapshot(), make.a_snapshot_row(), make.an_example(), make.a_manifest(), make.a_fingerprint(), make.a_label(),
    )  # fmt: skip
    for record in records:
        assert from_plain(type(record), json.loads(canonical(record))) == record, type(record)
    assert from_plain(TrainingPlan, json.loads(canonical(plan))) == plan
    assert from_plain(TrainingResult, json.loads(canonical(result))) == result


def test_fields_that_are_absent_take_their_default_and_unknown_ones_are_left() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert from_plain(Leaf, {"name": "a", "at": at.isoformat(), "added_later": 1}) == Leaf("a", at)


def test_a_whole_number_in_a_float_field_becomes_a_float() -> None:
    got = from_plain(Leaf, {"name": "a", "at": "2026-01-01T00:00:00+00:00", "share": 1})
    assert isinstance(got.share, float)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_has_no_canonical_form(bad: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"x": bad})


def test_what_no_record_may_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="a record may not hold a bytes"):
        to_plain({"x": b"raw"})


def test_a_changed_field_changes_the_digest() -> None:
    assert digest_of(make.a_contract()) != digest_of(replace(make.a_contract(), floor=0.81))
