"""Any change to a chain of entries is found at the row where it was made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from holdfast.domain.ledger import GENESIS, LedgerEntry, chain, verify
from holdfast.errors import LedgerBroken

NOON = datetime(2026, 3, 3, 12, tzinfo=UTC)


def a_chain(length: int = 6) -> list[LedgerEntry]:
    entries: list[LedgerEntry] = []
    for number in range(length):
        newest = entries[-1] if entries else None
        at = NOON + timedelta(seconds=number)
        entries.append(chain(newest, at=at, kind="promotion.committed", task="tickets", actor="me", body={"n": number}))
    return entries


def test_a_whole_chain_verifies_and_an_empty_one_too() -> None:
    assert verify(a_chain()) == 6
    assert verify([]) == 0
    assert a_chain()[0].previous_hash == GENESIS


def test_the_same_decisions_give_the_same_hashes() -> None:
    assert [e.hash for e in a_chain()] == [e.hash for e in a_chain()]


EDITS: dict[str, object] = {
    "at": NOON + timedelta(days=1), "kind": "promotion.refused", "task": "other", "actor": "you", "body": '{"n":9}', "hash": GENESIS,
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_field_is_found_at_its_row(name: str) -> None:
    entries = a_chain()
    entries[3] = replace(entries[3], **{name: EDITS[name]})  # type: ignore[arg-type]
    with pytest.raises(LedgerBroken) as caught:
        verify(entries)
    assert caught.value.fields["seq"] == 4


def removed(entries: list[LedgerEntry]) -> list[LedgerEntry]:
    return entries[:2] + entries[3:]


def moved(entries: list[LedgerEntry]) -> list[LedgerEntry]:
    return [*entries[:2], entries[3], entries[2], *entries[4:]]


def inserted(entries: list[LedgerEntry]) -> list[LedgerEntry]:
    return [*entries[:3], entries[2], *entries[3:]]


def beheaded(entries: list[LedgerEntry]) -> list[LedgerEntry]:
    return entries[1:]


@pytest.mark.parametrize("change", [removed, moved, inserted, beheaded])
def test_a_removed_moved_or_inserted_row_is_found(change: Callable[[list[LedgerEntry]], list[LedgerEntry]]) -> None:
    with pytest.raises(LedgerBroken):
        verify(change(a_chain()))


def test_a_row_rewritten_with_a_fresh_hash_breaks_the_next_row() -> None:
    entries = a_chain()
    entries[2] = chain(entries[1], at=NOON, kind="k", task="t", actor="intruder", body={})
    with pytest.raises(LedgerBroken) as caught:
        verify(entries)
    assert caught.value.fields["seq"] == 4


def test_a_body_is_canonical_whatever_the_order_of_its_keys() -> None:
    one = chain(None, at=NOON, kind="k", task="t", actor="a", body={"a": 1, "b": {"d": 1.5, "c": None}})
    two = chain(None, at=NOON, kind="k", task="t", actor="a", body={"b": {"c": None, "d": 1.5}, "a": 1})
    assert one == two


def test_an_instant_in_another_zone_survives_the_way_through_text() -> None:
    at = datetime(2026, 3, 3, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    entry = chain(None, at=at, kind="k", task="t", actor="a", body={})
    assert verify([replace(entry, at=datetime.fromisoformat(at.isoformat()))]) == 1


def test_a_number_that_is_not_finite_cannot_enter_the_ledger() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        chain(None, at=NOON, kind="k", task="t", actor="a", body={"share": float("nan")})
