"""Synthetic messages with sets of labels or with spans, whose world may change: for tests, and for nothing else.

SYNTHETIC like `traffic`: sentences put together under a seed. Sets: a message speaks of one to three topics, or of none. Spans: an
order names things, amounts and places. After the change there is a topic, or a field, that nobody had heard of before.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from holdfast.domain.answers import Span, labels_value, spans_value
from holdfast.domain.datasets import Example

__all__ = ["FIELDS", "TOPICS", "orders", "topics"]

TOPICS: Mapping[str, Sequence[str]] = {
    "billing": ("the invoice shows a fee twice", "my refund has not come", "you charged the wrong card"),
    "login": ("I cannot log in any more", "the password is refused", "my account is locked"),
    "delivery": ("the parcel is late", "the courier never rang", "the box arrived broken"),
}
LATER_TOPIC = ("rewards", ("my loyalty points are gone", "the voucher code is void", "the bonus stars do not show"))
REMARKS = ("good morning", "thank you all", "have a nice day", "greetings from here")
FIELDS: Mapping[str, Sequence[str]] = {
    "item": ("green tea", "brown rice", "olive oil", "rye bread", "goat cheese"),
    "amount": ("two boxes", "12 bags", "three", "a dozen", "5 kg"),
    "city": ("Oslo", "São Paulo", "Graz", "Zürich", "New Delhi"),
}
LATER_FIELD = ("courier", ("Red Panda", "Swift Owl", "Blue Whale"))
ORDERS = ("send {amount} of {item} to {city}", "{item} for {city}, {amount} please", "we need {amount} {item}", "ship {item} to {city}")
LATER_ORDERS = ("send {item} to {city} with {courier}", "{courier} shall bring {amount} of {item}", "let {courier} ship to {city}")


def topics(seed: int, count: int, *, changed: bool = False) -> list[Example]:
    """Messages with their sets of topics.

    >>> topics(1, 2) == topics(1, 2)
    True
    """
    chance = random.Random(f"topics {seed} {changed}")
    known = dict(TOPICS) | ({LATER_TOPIC[0]: LATER_TOPIC[1]} if changed else {})
    found = []
    for number in range(count):
        named = chance.sample(sorted(known), chance.choice((0, 1, 1, 2, 2, 3)))
        named = sorted({*named, LATER_TOPIC[0]}) if changed and chance.random() < 0.5 else named
        parts = [chance.choice(known[name]) for name in named] or [chance.choice(REMARKS)]
        chance.shuffle(parts)
        found.append(Example(text=f"{' and '.join(parts)} ({number})", label=labels_value(named)))
    return found


def orders(seed: int, count: int, *, changed: bool = False) -> list[Example]:
    """Orders with the spans of their fields.

    >>> orders(1, 2) == orders(1, 2)
    True
    """
    chance = random.Random(f"orders {seed} {changed}")
    words = dict(FIELDS) | {LATER_FIELD[0]: LATER_FIELD[1]}
    found = []
    for number in range(count):
        form = chance.choice(LATER_ORDERS if changed and chance.random() < 0.7 else ORDERS)
        text, spans = "", []
        for piece in re.split(r"(\{\w+\})", form):
            field = piece.strip("{}") if piece.startswith("{") else None
            said = chance.choice(words[field]) if field else piece
            if field:
                spans.append(Span(field=field, start=len(text), end=len(text) + len(said), text=said))
            text += said
        found.append(Example(text=f"{text} #{number}", label=spans_value(spans)))
    return found
