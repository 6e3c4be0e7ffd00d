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
COMMON_SHARE = 0.2
"""Share of a text's words among the common ones above which it is in the language of the known texts."""
MIN_WORDS = 4
"""Texts with fewer words say too little about their language."""
DIFFERENT_CUT = 5
"""Different texts of one length below which a repeated text is likelier than a cut."""
TORN_SHARE = 0.25
"""Share of the different texts of one length that must end within a word, for that length to be where they are cut."""
CUT = "cut at one length"
MARKUP = re.compile(r"</?[a-zA-Z][\w-]*(\s[^<>]*)?/?>|&(amp|lt|gt|quot|nbsp|#\d+);|^\s*[{\[].*[\]}]\s*$|\"\w+\"\s*:", re.DOTALL)
LEAST_FIT = 0.02
"""Quantile of the known texts' fit of letters below which a text of unseen words counts as of another language."""


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
    trigrams: Mapping[str, float]
    """Three letters to the log of their share; the empty text stands for those never seen."""
    least_fit: float
    beginnings: frozenset[str]
    """Beginnings of known words, at least two letters shorter than the word."""


def lexicon_of(texts: Sequence[str]) -> Lexicon:
    """The lexicon of known texts."""
    words = Counter(word for text in texts for word in set(words_of(text)))
    lengths = [len(text.strip()) for text in texts] or [0]
    trigrams = _trigram_table(texts)
    fits = [letters_fit(text, trigrams) for text in texts] or [0.0]
    return Lexicon(
        words=words,
        common=frozenset(word for word, _ in sorted(words.items(), key=lambda i: (-i[1], i[0]))[:COMMON_WORDS]),
        letters=frozenset(letter for word in words for letter in word),
        text_count=len(texts),
        short_chars=float(np.quantile(lengths, 0.01)) / 2,
        trigrams=trigrams,
        least_fit=float(np.quantile(fits, LEAST_FIT)),
        beginnings=frozenset(word[:n] for word in words for n in range(2, len(word) - 1)),
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


def new_words(texts: Sequence[str], lexicon: Lexicon) -> NDArray[np.bool_]:
    """Whether each text [n] holds a word that no known text holds and that three different ones of these hold, and one in a hundred.

    A word that comes once is a name or a slip; one that comes again is a word of the time. A text sent again makes no word new.
    """
    held = Counter(word for text in set(texts) for word in set(words_of(text)) if word not in lexicon.words)
    again = {word for word, count in held.items() if count >= max(3, 0.01 * len(texts))}
    return np.array([not again.isdisjoint(words_of(text)) for text in texts], dtype=bool)


def breaks(texts: Sequence[str], lexicon: Lexicon) -> dict[str, int]:
    """Sign of an upstream break to the number of texts that show it. ``cut at one length`` looks at all texts together."""
    found = {sign: sum(test(text, lexicon) for text in texts) for sign, test in SIGNS.items()}
    return {**found, CUT: _cut(texts, lexicon)}


def shows(sign: str, text: str, lexicon: Lexicon, *, char_count: int = 0) -> bool:
    """Whether one text shows a sign; ``char_count`` is the length that the sign ``cut at one length`` was found at."""
    return len(text) == char_count if sign == CUT else sign in SIGNS and SIGNS[sign](text, lexicon)


def cut_length(texts: Sequence[str], lexicon: Lexicon) -> int:
    """The length at which texts are cut: the one at which most different ones end within a word, else the greatest of all. 0 for none."""
    different = [text for text in set(texts) if len(text) > lexicon.short_chars]
    torn = Counter(len(text) for text in different if _ends_in_a_word(text, lexicon))
    length, count = min(torn.items(), key=lambda i: (-i[1], i[0]), default=(0, 0))
    there = sum(len(text) == length for text in different)
    if count >= DIFFERENT_CUT and count >= TORN_SHARE * there:
        return length
    longest = max(map(len, texts), default=0)
    return longest if sum(len(text) == longest for text in different) >= DIFFERENT_CUT else 0


def _cut(texts: Sequence[str], lexicon: Lexicon) -> int:
    """Texts of the length at which texts are cut.

    One text sent again and again (a probe, a caller that retries) is not cut.

    >>> lexicon = lexicon_of(["a text of some length", "another one"])
    >>> breaks(["one text sent again"] * 30, lexicon)["cut at one length"]
    0
    >>> breaks([f"another text, number {n}" for n in range(10, 40)], lexicon)["cut at one length"]
    30
    """
    at = cut_length(texts, lexicon)
    return sum(len(text) == at for text in texts) if at else 0


def _short(text: str, lexicon: Lexicon) -> bool:
    return 0 < len(text.strip()) < lexicon.short_chars


def _garbled(text: str, lexicon: Lexicon) -> bool:
    signs = [c for c in text if not c.isspace()]
    return bool(signs) and sum(c.isalpha() for c in signs) < 0.4 * len(signs)


def _foreign_script(text: str, lexicon: Lexicon) -> bool:
    letters = [c for c in text.lower() if c.isalpha()]
    return len(letters) >= 3 and sum(c not in lexicon.letters for c in letters) > 0.5 * len(letters)


def _foreign_language(text: str, lexicon: Lexicon) -> bool:
    """Most words unseen, hardly a common one, and letters that follow one another as in hardly any known text."""
    words = words_of(text)
    if len(words) < MIN_WORDS or _foreign_script(text, lexicon) or unseen_share(text, lexicon) < 0.5:
        return False
    if sum(word in lexicon.common for word in words) > COMMON_SHARE * len(words):
        return False
    return letters_fit(text, lexicon.trigrams) < lexicon.least_fit


def letters_fit(text: str, trigrams: Mapping[str, float]) -> float:
    """Mean log-odds of a text's letter trigrams; a trigram that no known text holds counts as the least that one may have."""
    found = [trigrams.get(t, trigrams[""]) for t in _trigrams(text)]
    return sum(found) / len(found) if found else 0.0


def _trigrams(text: str) -> list[str]:
    line = f" {' '.join(words_of(text))} "
    return [line[i : i + 3] for i in range(len(line) - 2)]


def _trigram_table(texts: Sequence[str]) -> dict[str, float]:
    counts = Counter(t for text in texts for t in _trigrams(text))
    total = counts.total() + 1
    return {t: float(np.log(n / total)) for t, n in counts.items()} | {"": float(np.log(0.3 / total))}


def _markup(text: str, lexicon: Lexicon) -> bool:
    return MARKUP.search(text) is not None


def _ends_in_a_word(text: str, lexicon: Lexicon) -> bool:
    """The last letters are no known word but begin one, and no sign ends the text."""
    words = words_of(text)
    if len(words) < MIN_WORDS or not text[-1:].isalpha():
        return False
    return words[-1] not in lexicon.words and words[-1] in lexicon.beginnings


SIGNS: Mapping[str, Callable[[str, Lexicon], bool]] = {
    "empty": lambda text, _: not text.strip(),
    "far shorter than before": _short,
    "made of signs, not letters": _garbled,
    "in broken encoding": lambda text, _: BROKEN_ENCODING.search(text) is not None,
    "in another script": _foreign_script,
    "in another language": _foreign_language,
    "markup or JSON": _markup,
    "ending within a word": _ends_in_a_word,
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
