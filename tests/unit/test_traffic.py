"""The synthetic tickets: reproducible, changed where they should be, and nowhere else."""

from __future__ import annotations

from collections import Counter

from holdfast.testing.traffic import INTENTS, history, stream
from holdfast.testing.vocabulary import SLOTS, THEMES


def test_the_same_seed_writes_the_same_tickets() -> None:
    assert list(stream(7, 50, 20)) == list(stream(7, 50, 20))
    assert list(stream(7, 50, 20)) != list(stream(8, 50, 20))


def test_history_and_stream_do_not_share_their_random_numbers() -> None:
    assert [t.text for t in history(7, 50)] != [t.text for t in stream(7, 50, None)]


def test_a_change_alters_nothing_before_it() -> None:
    assert list(stream(7, 100, 60))[:60] == list(stream(7, 100, None))[:60]


def test_every_intent_occurs_before_and_after_the_change() -> None:
    tickets = list(stream(7, 2_000, 1_000))
    for part in (tickets[:1_000], tickets[1_000:]):
        assert set(Counter(t.label for t in part)) == set(INTENTS)


def test_a_wish_to_change_the_plan_moves_from_billing_to_sales() -> None:
    tickets = [t for t in stream(7, 4_000, 2_000) if "plan change to" in t.text.lower()]
    assert {t.label for t in tickets if not t.changed} == {"billing"}
    assert {t.label for t in tickets if t.changed} == {"sales"}


def test_new_products_are_named_only_after_the_change() -> None:
    named = [t.changed for t in stream(7, 4_000, 2_000) if "ledgerly" in t.text.lower()]
    assert len(named) > 100
    assert all(named)


def test_no_slot_is_left_open() -> None:
    assert not [t.text for t in stream(7, 3_000, 1_500) if "{" in t.text or "}" in t.text]
    assert all(words for words in SLOTS.values())


def test_the_intents_are_the_labels_of_the_themes() -> None:
    assert {t.label for t in THEMES} | {t.label_after for t in THEMES if t.label_after} == set(INTENTS)
