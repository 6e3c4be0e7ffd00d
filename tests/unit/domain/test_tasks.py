"""A contract is read whole, or every one of its mistakes is named with its place."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.domain.records import to_plain
from holdfast.domain.tasks import LoraSpec, TaskContract, parse_contract
from holdfast.errors import ContractInvalid

SMALL: dict[str, Any] = {"task": "tickets", "labels": ["billing", "delivery"], "floor": 0.8}


def problems_of(plain: object) -> dict[str, str]:
    """Place to message."""
    with pytest.raises(ContractInvalid) as caught:
        parse_contract(plain, source="tickets.yaml")
    assert "tickets.yaml" in str(caught.value)
    return {problem.place: problem.message for problem in caught.value.problems}


def test_three_lines_suffice() -> None:
    contract = parse_contract(SMALL)
    assert contract.labels == ("billing", "delivery")
    assert contract.retraining.lora == LoraSpec()
    assert contract.residency == "local"


def test_what_was_read_comes_back_from_its_plain_form() -> None:
    contract = parse_contract(SMALL | {"retraining": {"rung": "lora", "lora": {"rank": 4}}, "cost_ceiling_per_1k": 2})
    assert parse_contract(to_plain(contract)) == contract
    assert (contract.retraining.lora.rank, contract.cost_ceiling_per_1k) == (4, 2.0)


def test_every_mistake_is_reported_at_once_each_at_its_path() -> None:
    found = problems_of({
        "task": "tickets", "labels": ["a", "b"], "flor": 0.8, "retraining": {"min_labels": 3, "lora": {"rank": "8"}},
        "promotion": {"mode": "auto"}, "monitoring": ["x"],
    })  # fmt: skip
    assert set(found) == {"flor", "floor", "retraining.min_labels", "retraining.lora.rank", "promotion.mode", "monitoring"}
    assert "is not a field" in found["flor"]
    assert found["floor"] == "is required"
    assert found["retraining.lora.rank"] == "must be a whole number, not '8'"
    assert found["retraining.min_labels"] == "must lie in 20 .. 1e+06, not 3"
    assert "off, suggest, automatic" in found["promotion.mode"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"task": "Tickets"}, "task"), ({"task": "../etc"}, "task"), ({"task": "a" * 64}, "task"), ({"task": 5}, "task"),
        ({"labels": ["one"]}, "labels"), ({"labels": ["a", "a"]}, "labels"), ({"labels": ["a", " "]}, "labels"),
        ({"labels": "ab"}, "labels"), ({"labels": [True, False]}, "labels"), ({"floor": 1.5}, "floor"), ({"floor": True}, "floor"),
        ({"floor": float("nan")}, "floor"), ({"floor": None}, "floor"), ({"kind": "regression"}, "kind"),
        ({"labels_open": "yes"}, "labels_open"),
        ({"max_tokens": 128.5}, "max_tokens"), ({"retraining": None}, "retraining"), ({"latency_budget_ms": 0}, "latency_budget_ms"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_at_its_place(change: dict[str, Any], place: str) -> None:
    assert list(problems_of(SMALL | change)) == [place]


@pytest.mark.parametrize("plain", [None, [], "text", 5])
def test_a_file_that_is_no_mapping_is_refused(plain: object) -> None:
    assert list(problems_of(plain)) == ["the file"]


def test_an_open_set_of_labels_may_begin_with_one() -> None:
    contract = parse_contract(SMALL | {"labels": ["billing"], "labels_open": True})
    assert isinstance(contract, TaskContract)
    assert contract.labels == ("billing",)


def test_what_is_redacted_is_named_from_a_list_and_a_mistake_says_it() -> None:
    assert parse_contract(SMALL).capture.redact == ()
    assert parse_contract(SMALL | {"capture": {"redact": ["email", "ip"]}}).capture.redact == ("email", "ip")
    found = problems_of(SMALL | {"capture": {"redact": ["email", "passport"]}})
    assert found == {"capture.redact.1": "must be one of email, phone, credit_card, iban, ip, not 'passport'"}


def test_the_slices_that_are_kept_are_few_and_have_short_names() -> None:
    assert parse_contract(SMALL).capture.slices is None
    assert parse_contract(SMALL | {"capture": {"slices": ["channel"]}}).capture.slices == ("channel",)
    assert problems_of(SMALL | {"capture": {"slices": ["x" * 65]}}) == {"capture.slices": "a name has 1 to 64 characters"}
    assert problems_of(SMALL | {"capture": {"slices": [f"s{n}" for n in range(17)]}}) == {"capture.slices": "more than 16 names"}
