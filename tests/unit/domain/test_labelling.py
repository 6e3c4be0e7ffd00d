"""Right answers as people give them."""

from __future__ import annotations

import pytest

from holdfast.domain.answers import Span, labels_value, spans_value
from holdfast.domain.labelling import natural, problem_of, read_answer
from holdfast.domain.tasks import TaskContract, parse_contract
from holdfast.errors import ContractInvalid, DataInvalid

TEXT = "fly to São Paulo 🛫 today"
CITY = spans_value([Span(field="city", start=7, end=16, text="São Paulo")])


def contract(kind: str, **more: object) -> TaskContract:
    labels = ["city", "day"] if kind == "extraction" else ["a", "b", "c"]
    return parse_contract({"task": "t", "kind": kind, "labels": labels, "floor": 0.5, **more})


@pytest.mark.parametrize("given", [["b", "a"], ["a", "b", "a"], "a|b", " b | a ", '["b", "a"]', labels_value(["a", "b"])])
def test_a_set_may_be_written_in_any_natural_form(given: object) -> None:
    assert read_answer("multi-label", given, "text") == '["a","b"]'


@pytest.mark.parametrize(
    "given",
    [
        [{"field": "city", "start": 7, "end": 16}],
        [{"slot": "city", "start": 7, "end": 16, "value": "São Paulo"}],
        '[{"label": "city", "start": 7, "end": 16, "text": "São Paulo"}]',
        {"city": "São Paulo"},
        '{"city": ["São Paulo"]}',
        CITY,
    ],
)
def test_spans_may_be_written_in_any_natural_form(given: object) -> None:
    assert read_answer("extraction", given, TEXT) == CITY


def test_nothing_found_is_an_answer() -> None:
    assert read_answer("multi-label", [], "text") == "[]"
    assert read_answer("extraction", "[]", TEXT) == spans_value([])


@pytest.mark.parametrize(
    ("kind", "given", "problem"),
    [
        ("classification", '["a"]', "is a set or spans"),
        ("classification", ["a", "b"], "not a label"),
        ("multi-label", "", "not a list"),
        ("multi-label", ["a", " "], "empty"),
        ("multi-label", [["a"]], "not a label"),
        ("extraction", "city", "not a list of spans"),
        ("extraction", [{"start": 0, "end": 2}], "no field"),
        ("extraction", [{"field": "city", "start": "7", "end": 16}], "whole numbers"),
        ("extraction", [{"field": "city", "start": 7, "end": 99}], "does not lie in the text"),
        ("extraction", [{"field": "city", "start": 7, "end": 7}], "does not lie in the text"),
        ("extraction", [{"field": "city", "start": 7, "end": 16, "text": "Paulo"}], "the text 'São Paulo'"),
        ("extraction", [{"field": "city", "start": 7, "end": 16}, {"field": "day", "start": 12, "end": 20}], "overlap at character 12"),
        ("extraction", {"city": "Oslo"}, "exactly once"),
        ("extraction", {"city": "a"}, "exactly once"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_reason(kind: str, given: object, problem: str) -> None:
    with pytest.raises(DataInvalid, match=problem):
        read_answer(kind, given, TEXT)  # type: ignore[arg-type]


def test_a_canonical_answer_is_checked_against_text_and_contract() -> None:
    assert problem_of(CITY, TEXT, contract("extraction")) is None
    assert "not one of the contract" in str(problem_of(CITY.replace("city", "town"), TEXT, contract("extraction")))
    assert problem_of(CITY.replace("city", "town"), TEXT, contract("extraction", labels_open=True)) is None
    assert "the text 'fly to Sã'" in str(problem_of(CITY.replace("7", "0").replace("16", "9"), TEXT, contract("extraction")))
    assert "kind multi-label" in str(problem_of("a", TEXT, contract("multi-label")))
    assert "kind classification" in str(problem_of('["a"]', TEXT, contract("classification")))


@pytest.mark.parametrize(
    ("plain", "place"),
    [
        ({"kind": "classification", "metric": "f1"}, "metric"),
        ({"kind": "multi-label", "labels": ["a|b", "c"]}, "labels"),
        ({"kind": "classification", "labels": ["[a]", "b"]}, "labels"),
        ({"kind": "generation"}, "kind"),
    ],
)
def test_a_contract_that_no_answer_could_fit_is_refused(plain: dict[str, object], place: str) -> None:
    with pytest.raises(ContractInvalid) as refused:
        parse_contract({"task": "t", "labels": ["a", "b"], "floor": 0.5, **plain})
    assert place in str(refused.value)


@pytest.mark.parametrize("field", ["city", "spans"])
@pytest.mark.parametrize("text", ["fly to Oslo", "Oslo to Oslo", "Oslo, Osloer Oslo"])
def test_an_answer_written_naturally_is_read_back_as_the_same_answer(field: str, text: str) -> None:
    start = text.index("Oslo")
    value = spans_value([Span(field=field, start=start, end=start + 4, text="Oslo")])
    assert read_answer("extraction", natural(value, text), text) == value
    assert natural(spans_value([]), text) == "{}"
    assert read_answer("extraction", "{}", text) == spans_value([])


@pytest.mark.parametrize("value", ["[]", '["a"]', '["a","b"]'])
def test_a_set_written_naturally_is_read_back_as_the_same_set(value: str) -> None:
    assert read_answer("multi-label", natural(value, TEXT), TEXT) == value


def test_spans_of_several_fields_and_of_one_field_twice_are_read_back() -> None:
    spans = [Span(field="city", start=0, end=4, text="Oslo"), Span(field="city", start=8, end=12, text="Graz")]
    value = spans_value([*spans, Span(field="day", start=13, end=18, text="today")])
    assert natural(value, "Oslo or Graz today") == '{"city": ["Oslo", "Graz"], "day": "today"}'
    assert read_answer("extraction", natural(value, "Oslo or Graz today"), "Oslo or Graz today") == value
