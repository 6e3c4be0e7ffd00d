"""Symptoms in texts: signs that they were broken on the way, and the words that recent texts use more than known ones."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"[^\W\d_]{2,}")
BROKEN_ENCODING = re.compile("\ufffd|Ã[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹Œ‘’“”•–—˜™š›œ¡-¿]|â€|[\x00-\x08\x0b\x0c\x0e-\x1f]")
COMMON_WORDS = 60
"""The most common words of the known texts; a text of several words in the same language nearly always has one of them."""
MIN_WORDS = 4
"""Texts with fewer words say too little about their language."""
DIFFERENT_CUT = 5
"""Different texts of one length below which a repeated text is likelier than a cut."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lexicon:
    """What the known texts (those a version was trained on) are made of."""

    words: Mapping[str, int]
    """Word to the number of texts that hold it."""
    common: frozenset[str]
    letters: frozenset[str]
    text_count: int
    short_chars: float
    """Length below which a text is shorter than 99 in 100 known ones."""


def lexicon_of(texts: Sequence[str]) -> Lexicon:
    """The lexicon of known texts."""
    words = Counter(word for text in texts for word in set(words_of(text)))
    lengths = [len(text.strip()) for text in texts] or [0]
    return Lexicon(
        words=words,
        common=frozenset(word for word, _ in sorted(words.items(), key=lambda i: (-i[1], i[0]))[:COMMON_WORDS]),
        letters=frozenset(letter for word in words for letter in word),
        text_count=len(texts),
        short_chars=float(np.quantile(lengths, 0.01)) / 2,
    )


def words_of(text: str) -> list[str]:
    """Lower-case words of two letters and more, in order.

    >>> words_of("Où est ma carte? 24h")
    ['où', 'est', 'ma', 'carte']
    """
    return WORD.findall(unicodedata.normalize("NFC", text).lower())


def unseen_share(text: str, lexicon: Lexicon) -> float:
    """Share of a text's words that no known text holds; 0 for a text without words."""
    words = words_of(text)
    return sum(word not in lexicon.words for word in words) / len(words) if words else 0.0


def breaks(texts: Sequence[str], lexicon: Lexicon) -> dict[str, int]:
    """Sign of an upstream break to the number of texts that show it. ``cut at one length`` looks at all texts together."""
    found = {sign: sum(test(text, lexicon) for text in texts) for sign, test in SIGNS.items()}
    return {**found, "cut at one length": _cut(texts, lexicon)}


def _cut(texts: Sequence[str], lexicon: Lexicon) -> int:
    """Texts that have exactly the greatest length among all: many different ones do only when something cuts them there.

    One text sent again and again (a probe, a caller that retries) is not cut.

    >>> lexicon = lexicon_of(["a text of some length", "another one"])
    >>> breaks(["one text sent again"] * 30, lexicon)["cut at one length"]
    0
    >>> breaks([f"another text, number {n}" for n in range(10, 40)], lexicon)["cut at one length"]
    30
    """
    longest = max(map(len, texts), default=0)
    cut = [text for text in texts if len(text) == longest]
    return len(cut) if len(set(cut)) >= DIFFERENT_CUT and longest > lexicon.short_chars else 0


def _short(text: str, lexicon: Lexicon) -> bool:
    return 0 < len(text.strip()) < lexicon.short_chars


def _garbled(text: str, lexicon: Lexicon) -> bool:
    signs = [c for c in text if not c.isspace()]
    return bool(signs) and sum(c.isalpha() for c in signs) < 0.4 * len(signs)


def _foreign_script(text: str, lexicon: Lexicon) -> bool:
    letters = [c for c in text.lower() if c.isalpha()]
    return len(letters) >= 3 and sum(c not in lexicon.letters for c in letters) > 0.5 * len(letters)


def _foreign_language(text: str, lexicon: Lexicon) -> bool:
    words = words_of(text)
    if len(words) < MIN_WORDS or lexicon.common.intersection(words) or _foreign_script(text, lexicon):
        return False
    return unseen_share(text, lexicon) >= 0.5


SIGNS: Mapping[str, Callable[[str, Lexicon], bool]] = {
    "empty": lambda text, _: not text.strip(),
    "far shorter than before": _short,
    "made of signs, not letters": _garbled,
    "in broken encoding": lambda text, _: BROKEN_ENCODING.search(text) is not None,
    "in another script": _foreign_script,
    "in another language": _foreign_language,
}


def over_represented(texts: Sequence[str], lexicon: Lexicon, count: int = 5) -> tuple[str, ...]:
    """Words that recent texts hold surprisingly often, most surprising first.

    Log-odds against the known texts, in standard errors, smoothed by one text (Monroe, Colaresi, Quinn, "Fightin' Words", 2008).
    A word in fewer than three recent texts is left out.
    """
    recent = Counter(word for text in texts for word in set(words_of(text)))
    names = sorted(word for word, held in recent.items() if held >= 3)
    if not names:
        return ()
    now = np.array([recent[word] for word in names], dtype=np.float64)
    before = np.array([lexicon.words.get(word, 0) for word in names], dtype=np.float64)
    surprise = _log_odds(now, len(texts)) - _log_odds(before, lexicon.text_count)
    z = surprise / np.sqrt(1 / (now + 0.5) + 1 / (before + 0.5))
    ranked = sorted(zip(-z, names, strict=True))  # the word breaks ties, so the sentence is the same every time
    return tuple(word for minus_z, word in ranked[:count] if minus_z < -2.0)


def _log_odds(held: NDArray[np.float64], texts: int) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = np.log((held + 0.5) / (texts - held + 0.5))
    return odds
