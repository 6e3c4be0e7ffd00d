"""Right answers as people and files give them, read into their canonical text and checked against text and contract.

>>> read_answer("multi-label", "net | auth", "no route to host")
'["auth","net"]'
>>> read_answer("extraction", [{"slot": "city", "start": 3, "end": 7}], "in Oslo")
'{"spans":[{"field":"city","start":3,"end":7,"text":"Oslo"}]}'
>>> read_answer("extraction", {"city": "Oslo"}, "in Oslo") == read_answer("extraction", '{"city": ["Oslo"]}', "in Oslo")
True
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NoReturn

from holdfast.domain.answers import Span, kind_of, labels_in, labels_value, spans_in, spans_value
from holdfast.domain.tasks import Kind, TaskContract
from holdfast.errors import DataInvalid

MAX_LABEL_CHARS = 200
FIELD_KEYS = ("field", "slot", "label", "entity", "type", "name")
TEXT_KEYS = ("text", "value")
FORMS: Mapping[str, str] = {
    "classification": "give one label, a short text",
    "multi-label": 'give a list of labels, as ["a", "b"] or a|b; [] says that none fits',
    "extraction": 'give a list of spans, as [{"field": "city", "start": 3, "end": 7}], or {"city": "Oslo"} where that text stands once',
}


def read_answer(kind: Kind, given: object, text: str, *, strict: bool = True) -> str:
    """The canonical text of an answer to ``text``.

    Args:
        kind: of the task.
        given: a label; for sets a list of labels, its JSON, or labels divided by ``|``; for extractions a list of spans (`field` or
            `slot` or `label`, `start`, `end`, perhaps `text`), ``{"spans": [...]}``, a mapping of field to text or texts that each stand
            once in the input, or the JSON of any of these.
        text: the input.
        strict: whether spans must fit the text and lie apart; what is wrong with them otherwise, ``problem_of`` says.

    Raises:
        DataInvalid: it cannot be read so.
    """
    if kind == "classification":
        return _one(given)
    if kind == "multi-label":
        return _set(given)
    spans = sorted(set(_spans(_from_json(given), text)), key=lambda span: (span.start, span.end))
    problem = _span_problem(spans, text) if strict else None
    if problem is not None:
        _refuse("extraction", problem)
    return spans_value(spans)


def labels_named(kind: Kind, given: object) -> tuple[str, ...]:
    """The labels, or fields, that an answer names: what can be read of it without its text.

    Raises:
        DataInvalid: it is an answer to no text.

    >>> labels_named("extraction", '{"city": "Oslo"}'), labels_named("extraction", [{"field": "day", "start": 0, "end": 3}])
    (('city',), ('day',))
    """
    found = _from_json(given) if kind == "extraction" else None
    if isinstance(found, Mapping) and set(found) != {"spans"}:
        return tuple(_field(name) for name in found)
    return labels_in(read_answer(kind, given, "", strict=False))


def natural(value: str, text: str) -> str:
    """A canonical answer as a person would write it: what ``read_answer`` reads back to the same answer to this text.

    >>> natural(read_answer("extraction", {"city": "Oslo"}, "in Oslo"), "in Oslo"), natural('["auth","net"]', "")
    ('{"city": "Oslo"}', 'auth|net')
    >>> natural('{"spans":[{"field":"city","start":0,"end":4,"text":"Oslo"}]}', "Oslo or Oslo")
    '[{"field": "city", "start": 0, "end": 4}]'
    """
    kind = kind_of(value)
    if kind == "classification":
        return value
    if kind == "multi-label":
        return "|".join(labels_in(value)) or "[]"
    by_field: dict[str, list[str]] = {}
    for span in spans_in(value):
        by_field.setdefault(span.field, []).append(span.text)
    short = json.dumps({field: some[0] if len(some) == 1 else some for field, some in by_field.items()}, ensure_ascii=False)
    try:
        if read_answer(kind, short, text) == value:
            return short
    except DataInvalid:
        pass  # a text that stands twice: only its place says which one is meant
    return json.dumps([{"field": s.field, "start": s.start, "end": s.end} for s in spans_in(value)], ensure_ascii=False)


def problem_of(value: str, text: str, contract: TaskContract) -> str | None:
    """What is wrong with a canonical answer to a text under a contract; None when it can be stored."""
    if kind_of(value) != contract.kind:
        return f"the label is not one of a task of kind {contract.kind}; {FORMS[contract.kind]}"
    for label in labels_in(value):
        if not label.strip():
            return "the label is empty"
        if not contract.labels_open and label not in contract.labels:
            known = ", ".join(contract.labels[:10]) + (", …" if len(contract.labels) > 10 else "")
            return f"the label {label!r} is not one of the contract ({known})"
    return _span_problem(spans_in(value), text)


def _span_problem(spans: Sequence[Span], text: str) -> str | None:
    for span in spans:
        if not 0 <= span.start < span.end <= len(text):
            return f"the span {span.start}..{span.end} of {span.field!r} does not lie in the text of {len(text)} characters"
        if text[span.start : span.end] != span.text:
            return f"the span {span.start}..{span.end} of {span.field!r} says {span.text!r}, the text {text[span.start : span.end]!r}"
    for one, other in pairwise(spans):
        if other.start < one.end:
            return f"the spans of {one.field!r} and {other.field!r} overlap at character {other.start}"
    return None


def _one(given: object) -> str:
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    label = _label(given, "classification")
    if kind_of(label) != "classification":
        _refuse("classification", f"{label!r:.60} is a set or spans, the task has single labels")
    return label


def _set(given: object) -> str:
    if isinstance(given, str) and given.strip()[:1] == "[":
        given = _from_json(given)
    if isinstance(given, str) and given.strip():
        given = given.split("|")
    if not isinstance(given, list | tuple):
        _refuse("multi-label", f"{given!r:.60} is not a list of labels")
    return labels_value([_label(one, "multi-label") for one in given])


def _label(given: object, kind: Kind) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int):
        _refuse(kind, f"it is not a label but {given!r:.40}")
    label = str(given).strip()
    if not label:
        _refuse(kind, "the label is empty")
    if len(label) > MAX_LABEL_CHARS or "\0" in label:
        _refuse(kind, f"a label has at most {MAX_LABEL_CHARS} characters")
    return label


def _from_json(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        found: object = json.loads(given)
    except (ValueError, RecursionError):
        return given
    return found


def _spans(given: object, text: str) -> list[Span]:
    if isinstance(given, Mapping) and set(given) == {"spans"}:
        given = given["spans"]
    if isinstance(given, Mapping):
        return [
            _placed(_field(field), words, text) for field, some in given.items() for words in (some if isinstance(some, list) else [some])
        ]
    if not isinstance(given, list | tuple):
        _refuse("extraction", f"{given!r:.60} is not a list of spans")
    return [_span(one, text) for one in given]


def _span(given: object, text: str) -> Span:
    if not isinstance(given, Mapping):
        _refuse("extraction", f"{given!r:.60} is not a span")
    field = _field(next((given[key] for key in FIELD_KEYS if key in given), None))
    start, end = given.get("start"), given.get("end")
    if type(start) is not int or type(end) is not int:
        _refuse("extraction", f"the span of {field!r} goes from {start!r:.20} to {end!r:.20}: both must be whole numbers")
    said = next((given[key] for key in TEXT_KEYS if key in given), None)
    return Span(field=field, start=start, end=end, text=said if isinstance(said, str) else text[max(0, start) : max(0, end)])


def _placed(field: str, words: object, text: str) -> Span:
    if not isinstance(words, str) or not words.strip() or text.count(words) != 1:
        _refuse("extraction", f"{words!r:.60} of {field!r} does not stand exactly once in the text, so its place is not known")
    start = text.index(words)
    return Span(field=field, start=start, end=start + len(words), text=words)


def _field(given: object) -> str:
    return _label(given, "extraction") if given is not None else _refuse("extraction", f"a span has no field ({', '.join(FIELD_KEYS)})")


def _refuse(kind: Kind, problem: str) -> NoReturn:
    raise DataInvalid(source="sent", problem=problem, place="label", remedy=FORMS[kind])
