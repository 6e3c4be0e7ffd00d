"""Synthetic support tickets whose world changes once: for the demonstration, for tests, and for nothing else.

The stream is SYNTHETIC: sentences written for this project are filled with slots, greetings and typing errors under a seed.
It stands in for real traffic where none can be shipped; figures measured on it say that the loop works, not how good it is
on anybody's tickets. Use ``holdfast backtest`` on your own history for that.

The change does harm in two ways at once. New products and new words come in for five intents, in sentences that look like
other intents to a version that never saw them. And one meaning changes: a wish to change the plan was a matter for
`billing` and now, by a new policy, is one for `sales`, though the texts stay the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.testing.vocabulary import CLOSINGS, INTENTS, OPENINGS, SLOTS, THEMES, Theme

__all__ = ["INTENTS", "Ticket", "history", "stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One ticket with its right label at that moment."""

    text: str
    label: str
    """A canonical text (`domain.answers`); the synthetic tickets have single labels."""
    index: int
    """Counts from 0 within its stream."""
    changed: bool
    """Whether it was written after the change."""


def history(seed: int, n: int) -> tuple[Ticket, ...]:
    """``n`` tickets of the world before the change: what version 1 is trained on. Its random numbers are not those of ``stream``.

    >>> history(1, 3) == history(1, 3), history(1, 3)[0].changed
    (True, False)
    """
    chance = random.Random(f"history {seed}")
    return tuple(_ticket(chance, index, changed=False) for index in range(n))


def stream(seed: int, n: int, change_at: int | None) -> Iterator[Ticket]:
    """``n`` tickets; from index ``change_at`` on the world is the new one (None: it never changes).

    >>> [ticket.changed for ticket in stream(1, 4, 2)]
    [False, False, True, True]
    """
    chance = random.Random(f"stream {seed}")
    for index in range(n):
        yield _ticket(chance, index, changed=change_at is not None and index >= change_at)


def _ticket(chance: random.Random, index: int, *, changed: bool) -> Ticket:
    weights = [theme.after if changed else theme.before for theme in THEMES]
    theme = chance.choices(THEMES, weights)[0]
    return Ticket(text=_write(chance, theme), label=_label(theme, changed=changed), index=index, changed=changed)


def _label(theme: Theme, *, changed: bool) -> str:
    return theme.label_after if changed and theme.label_after is not None else theme.label


def _write(chance: random.Random, theme: Theme) -> str:
    """One sentence with its slots filled, now and then with a greeting, an ending, lower case or a typing error."""
    text = chance.choice(theme.sentences)
    if chance.random() < 0.30:
        text = chance.choice(OPENINGS) + text
    if chance.random() < 0.30:
        text += chance.choice(CLOSINGS)
    text = _fill(chance, text)
    if chance.random() < 0.25:
        text = text.lower()
    for _ in range(chance.choices((0, 1, 2, 3), (70, 15, 10, 5))[0]):
        text = _mistype(chance, text)
    return text


def _fill(chance: random.Random, text: str) -> str:
    """Each ``{slot}`` replaced by one of its words, drawn anew for each place."""
    parts = text.split("{")
    filled = [parts[0]]
    for part in parts[1:]:
        name, rest = part.split("}", 1)
        filled += [chance.choice(SLOTS[name]), rest]
    return "".join(filled).replace("the the ", "the ")


def _mistype(chance: random.Random, text: str) -> str:
    """One letter swapped with the next, left out, or doubled."""
    at = chance.randrange(len(text) - 1)
    kind = chance.randrange(3)
    if kind == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    return text[:at] + text[at] + text[at:]
