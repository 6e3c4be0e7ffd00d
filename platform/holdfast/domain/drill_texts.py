"""What a drill does to a text: pure, seeded, and the same for the same text, place and seed."""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Iterable, Mapping

NOISY_SHARE = 0.5
"""Share of the words that noise replaces by letters that spell nothing."""
MISTYPED_SHARE = 0.5
"""Share of the words of four letters and more that carry a typing error."""
CUT_CHARS = 16
"""Length at which truncation cuts; a text that is no longer than this is cut in half."""

_WHO = (
    "the gardener",
    "an old captain",
    "my neighbour",
    "the night watch",
    "a young weaver",
    "the beekeeper",
    "our choir",
    "the geologist",
)
_DID = ("planted", "painted", "measured", "sang of", "carried", "drew", "polished", "counted", "dreamt of", "buried")
_WHAT = ("tulip bulbs", "granite boulders", "a brass sextant", "seven barrels of herring", "wild thyme", "a wooden flute",
         "the moons of Saturn", "hand-spun wool", "beeswax candles", "a map of the glacier")  # fmt: skip
_WHERE = ("beside the lighthouse", "under the birch trees", "in the vineyard", "on the frozen lake", "behind the chapel", "at the fjord",
          "along the ridge", "near the volcano")  # fmt: skip
_WHEN = (
    "before dawn",
    "during the harvest",
    "in the first snow",
    "at high tide",
    "after the eclipse",
    "while it thundered",
    "last midsummer",
)


def noisy(text: str, chance: random.Random) -> str:
    """Half of the words, at least one, become random letters of the same length."""
    words = text.split()
    if not words:
        return text
    hit = set(chance.sample(range(len(words)), max(1, round(NOISY_SHARE * len(words)))))
    spelt = ("".join(chance.choices(string.ascii_lowercase, k=len(word))) if n in hit else word for n, word in enumerate(words))
    return " ".join(spelt)


def mistyped(text: str, chance: random.Random) -> str:
    """Half of the longer words, at least one if there is any, have two neighbours swapped, a letter lost, or a letter doubled."""
    words = text.split()
    longer = [n for n, word in enumerate(words) if len(word) >= 4]
    if not longer:
        return text
    for n in chance.sample(longer, max(1, round(MISTYPED_SHARE * len(longer)))):
        words[n] = _mistype(words[n], chance)
    return " ".join(words)


def truncated(text: str) -> str:
    """The first sixteen characters, as a field that became too short would keep; of a shorter text its first half.

    >>> truncated("where is the parcel that I ordered"), truncated("where is it")
    ('where is the par', 'where')
    """
    return text[:CUT_CHARS] if len(text) > CUT_CHARS else text[: len(text) // 2]


def out_of_domain(chance: random.Random) -> str:
    """A sentence that no support desk, bank or archive of papers gets: gardens, ships and stars. Written for this project."""
    return " ".join(chance.choice(part) for part in (_WHO, _DID, _WHAT, _WHERE, _WHEN))


def swapped_labels(labels: Iterable[str]) -> Mapping[str, str]:
    """Each label to the one it changes places with: the two most frequent with each other, then the next two; an odd one stays.

    >>> swapped_labels(["a", "b", "a", "c", "b", "a"])
    {'a': 'b', 'b': 'a', 'c': 'c'}
    """
    ranked = [label for label, _ in sorted(Counter(labels).items(), key=lambda item: (-item[1], item[0]))]
    return {label: ranked[place ^ 1] if place ^ 1 < len(ranked) else label for place, label in enumerate(ranked)}


def _mistype(word: str, chance: random.Random) -> str:
    at, kind = chance.randrange(len(word) - 1), chance.randrange(3)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :] if kind == 1 else word[: at + 1] + word[at:]
