"""What a contract calls sensitive is masked before a capture is written anywhere (decision 0025).

A mask is as long as what it hides, so offsets of spans stay right, and it keeps the shape: a letter becomes `x`, a digit `0`,
punctuation stays.

>>> redacted("mail a.b@c.org or call +44 20 7946 0958", ("email", "phone"))
'mail x.x@x.xxx or call +00 00 0000 0000'

Numbers that carry a check digit (cards: Luhn; IBAN: ISO 13616, modulo 97) are masked only when it is right. A phone number is known
by its form alone, so an order number of nine digits or more is masked with it.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from holdfast.domain.answers import kind_of, spans_in, spans_value
from holdfast.domain.captures import Capture
from holdfast.domain.labelling import TEXT_KEYS
from holdfast.domain.tasks import CapturePolicy, Sensitive

Stretch = tuple[int, int]
"""Start and end in characters, the end not included."""

_LOCAL = r"\w.!#$%&'*+/=?^`{|}~-"
EMAIL = re.compile(rf"(?<![{_LOCAL}])[{_LOCAL}]++@[\w-]++(?:\.[\w-]++)++")
PHONE = re.compile(r"(?<![\w+])(\+|00)?\(?\d(?:[ ./()-]{0,2}\d){6,14}(?!\w)")
DIGIT_GROUPS = re.compile(r"(?<!\w)\d{3,19}(?:[ -]\d{3,19})*+(?!\w)")
IBAN_HEAD = re.compile(r"(?<!\w)[A-Za-z]{2}\d{2}(?=[ -]?\w)")
IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w)")
IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]{3,39}(?:\.\d{1,3}){0,3}(?![\w:])")
DATE = re.compile(r"(?:19|20)\d\d[-./]\d\d?[-./]\d\d?\b|\d\d?[-./]\d\d?[-./](?:19|20)\d\d\b")

IBAN_LENGTHS = """
15 NO; 16 BE; 18 DK FI FO GL NL; 19 MK SI; 20 AT BA EE KZ LT LU XK; 21 CH HR LI LV; 22 BG BH CR DE GB GE IE ME RS VA; 23 AE GI IL IQ TL;
24 AD CZ ES MD PK RO SA SE SK TN VG; 25 LY PT ST; 26 IS TR; 27 FR GR IT MC MR SM; 28 AL AZ BY CY DO GT HU LB PL SV; 29 BR EG PS QA UA;
30 JO KW MU; 31 MT SC; 32 LC
"""
IBAN_CHARS: Mapping[str, int] = {country: int(line.split()[0]) for line in IBAN_LENGTHS.split(";") for country in line.split()[1:]}
"""Country to the length of its IBAN (SWIFT, IBAN registry)."""


def redacted(text: str, kinds: Sequence[Sensitive]) -> str:
    """The text with everything of these kinds masked; as many characters as before."""
    stretches = sorted(stretch for kind in kinds for stretch in FINDERS[kind](text))
    if not stretches:
        return text
    parts, done = [], 0
    for start, end in stretches:
        if end > done:
            parts += [text[done:start], _mask(text[max(start, done) : end])]
            done = end
    return "".join(parts) + text[done:]


def as_kept(capture: Capture, policy: CapturePolicy) -> Capture:
    """The capture as it may be written: its text, the spans cut from it, and the values of its slices masked.

    The embedding stays as the model computed it, from the whole text.
    """
    if not policy.redact:
        return capture
    text = redacted(capture.text, policy.redact)
    label = capture.prediction.label
    if kind_of(label) == "extraction":
        label = spans_value(tuple(replace(span, text=text[span.start : span.end]) for span in spans_in(label)))
    slices = {name: redacted(value, policy.redact) for name, value in capture.slices.items()}
    return replace(capture, text=text, prediction=replace(capture.prediction, label=label), slices=slices)


def redacted_label(value: str, kinds: Sequence[Sensitive], labels: Sequence[str] = ()) -> str:
    """A label as somebody gave it, in any form that ``labelling.read_answer`` reads, with nothing of these kinds in it.

    ``labels`` stay as they are. A span that has its place loses its text: the place says it, in the text that was kept.

    >>> redacted_label('[{"field": "to", "start": 3, "end": 8, "text": "a@b.c"}]', ("email",), ("to",))
    '[{"field": "to", "start": 3, "end": 8}]'
    """
    if not kinds or value in labels:
        return value
    try:
        plain = json.loads(value)
    except (ValueError, RecursionError):
        plain = None
    if not isinstance(plain, list | dict):
        return redacted(value, kinds)
    return json.dumps(_bare(plain, kinds, frozenset(labels)), ensure_ascii=False)


def _bare(plain: Any, kinds: Sequence[Sensitive], labels: frozenset[str]) -> Any:
    if isinstance(plain, dict):
        placed = type(plain.get("start")) is int and type(plain.get("end")) is int
        return {key: _bare(part, kinds, labels) for key, part in plain.items() if not (placed and key in TEXT_KEYS)}
    if isinstance(plain, list):
        return [_bare(part, kinds, labels) for part in plain]
    return redacted(plain, kinds) if isinstance(plain, str) and plain not in labels else plain


def _mask(text: str) -> str:
    return "".join("0" if c.isdigit() else c if c.isascii() and not c.isalpha() else "x" for c in text)


def _emails(text: str) -> Iterator[Stretch]:
    return (found.span() for found in EMAIL.finditer(text)) if "@" in text else iter(())


def _phones(text: str) -> Iterator[Stretch]:
    """From 7 digits behind `+` or `00` or with a leading zero, else from 9; 15 at most (E.164). Dates and IP addresses are none."""
    for found in PHONE.finditer(text):
        number = found[0]
        digits = sum(map(str.isdigit, number))
        enough = 7 if found[1] or number.lstrip("(").startswith("0") else 9
        if digits >= enough and not DATE.match(number) and not _is_address(number):
            yield found.span()


def _cards(text: str) -> Iterator[Stretch]:
    """13 to 19 digits, whole groups of three or more, whose check digit is right (ISO/IEC 7812)."""
    for run in DIGIT_GROUPS.finditer(text):
        groups = [(run.start() + g.start(), run.start() + g.end()) for g in re.finditer(r"\d+", run[0])]
        done = 0
        for first, (start, _) in enumerate(groups):
            if start < done:
                continue
            end = _card_end(text, groups[first : first + 7])
            if end is not None:
                yield start, end
                done = end


def _card_end(text: str, groups: Sequence[Stretch]) -> int | None:
    digits = ""
    for start, end in groups:
        digits += text[start:end]
        if len(digits) > 19:
            return None
        if len(digits) >= 13 and _luhn(digits):
            return end
    return None


def _luhn(digits: str) -> bool:
    doubled = [int(d) * 2 for d in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(d - 9 if d > 9 else d for d in doubled)) % 10 == 0


def _ibans(text: str) -> Iterator[Stretch]:
    for head in IBAN_HEAD.finditer(text):
        length = IBAN_CHARS.get(head[0][:2].upper())
        end = None if length is None else _end_of(text, head.start(), length)
        if end is not None and _is_iban(text[head.start() : end]):
            yield head.start(), end


def _end_of(text: str, start: int, length: int) -> int | None:
    """Where ``length`` letters and digits end that single blanks or hyphens may divide; None when they are fewer or more follow."""
    place, left = start, length
    while left and place < len(text):
        if text[place].isascii() and text[place].isalnum():
            left -= 1
        elif text[place] not in " -" or text[place - 1] in " -":
            return None
        place += 1
    return None if left or text[place : place + 1].isalnum() else place


def _is_iban(written: str) -> bool:
    plain = re.sub("[ -]", "", written).upper()
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _addresses(text: str) -> Iterator[Stretch]:
    for found in IPV4.finditer(text):
        if _is_address(found[0]):
            yield found.span()
    for found in IPV6.finditer(text) if ":" in text else ():
        if found[0].count(":") > 1 and _is_address(found[0]):
            yield found.span()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


FINDERS: Mapping[Sensitive, Callable[[str], Iterator[Stretch]]] = {
    "email": _emails,
    "phone": _phones,
    "credit_card": _cards,
    "iban": _ibans,
    "ip": _addresses,
}
