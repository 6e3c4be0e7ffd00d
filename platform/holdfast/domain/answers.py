"""Answers of every kind as one canonical text, so that records, log, wire and files hold an answer as they always did.

A single label is itself. A set of labels is a JSON array in order of name; spans are the JSON object ``{"spans": [...]}`` in order
of place. Both without blanks, so equal answers are equal texts, and the text alone says of which kind it is: whoever shows,
counts or compares answers needs no contract.

>>> labels_value(["net", "auth", "net"])
'["auth","net"]'
>>> spans_value([Span(field="city", start=3, end=7, text="Oslo")])
'{"spans":[{"field":"city","start":3,"end":7,"text":"Oslo"}]}'
>>> labels_in('["auth","net"]'), labels_in("auth"), labels_in("[]")
(('auth', 'net'), ('auth',), ())
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from holdfast.domain.tasks import Kind, Metric

SPANS = '{"spans":['
"""How the text of an extraction begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One field found in a text; ``text`` is the input from ``start`` up to ``end``, in characters."""

    field: str
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class _Parsed:
    kind: Kind
    labels: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()


def labels_value(labels: Iterable[str]) -> str:
    """The canonical text of a set of labels."""
    return _json(sorted(set(labels)))


def spans_value(spans: Iterable[Span]) -> str:
    """The canonical text of spans that do not overlap."""
    ordered = sorted(spans, key=lambda span: (span.start, span.end, span.field))
    return _json({"spans": [{"field": s.field, "start": s.start, "end": s.end, "text": s.text} for s in ordered]})


def kind_of(value: str) -> Kind:
    """The kind that a canonical text is of."""
    return _parsed(value).kind


def labels_in(value: str) -> tuple[str, ...]:
    """The labels, or the fields, that an answer holds, each once: of a single label itself."""
    return _parsed(value).labels


def spans_in(value: str) -> tuple[Span, ...]:
    """The spans of an answer, in order; none unless it is an extraction."""
    return _parsed(value).spans


def of_several(values: Iterable[str]) -> bool:
    """Whether answers are sets or spans, which hold several things or none, rather than single labels."""
    return any(kind_of(value) != "classification" for value in values)


def part_count(value: str) -> int:
    """How many labels of a set or spans of an extraction an answer holds; none of a single label, which is no part of anything.

    >>> part_count("a"), part_count('["a","b"]'), part_count('{"spans":[]}')
    (0, 2, 0)
    """
    parsed = _parsed(value)
    return len(parsed.spans) if parsed.kind == "extraction" else len(parsed.labels) if parsed.kind == "multi-label" else 0


def row_score(said: str, truth: str, metric: Metric) -> float:
    """How right an answer is, 0..1. `accuracy`: the whole of it or nothing. `f1`: F1 of its labels, or of its spans with field and offsets.

    >>> row_score('["a","b"]', '["b","c"]', "f1"), row_score('["a","b"]', '["b","c"]', "accuracy"), row_score("[]", "[]", "f1")
    (0.5, 0.0, 1.0)
    """
    if said == truth:
        return 1.0
    if metric == "accuracy":
        return 0.0
    ours, right = _items(said), _items(truth)
    return 2.0 * len(ours & right) / max(1, len(ours) + len(right))


def matches(said: str, truth: str) -> tuple[int, int, int]:
    """Items in both, items said, items that are true: sums of them over rows give micro-averaged precision, recall and F1."""
    ours, right = _items(said), _items(truth)
    return len(ours & right), len(ours), len(right)


def matches_by_label(said: str, truth: str) -> dict[str, tuple[int, int, int]]:
    """The same for each label or field that either answer holds.

    >>> matches_by_label('["a","b"]', '["b"]')
    {'a': (0, 1, 0), 'b': (1, 1, 1)}
    """
    ours, right = _items(said), _items(truth)
    labels = sorted({label for label, *_ in ours | right})
    return {name: (len(_of(ours & right, name)), len(_of(ours, name)), len(_of(right, name))) for name in labels}


def leading(value: str, counts: Mapping[str, int]) -> str:
    """The one label that stands for an answer where a scalar is needed: the rarest by ``counts`` (ties: by name), an empty text for none.

    >>> leading('["a","b"]', {"a": 10, "b": 2}), leading("a", {}), leading("[]", {})
    ('b', 'a', '')
    """
    labels = labels_in(value)
    return labels[0] if len(labels) == 1 else min(labels, key=lambda label: (counts.get(label, 0), label), default="")


def label_counts(values: Iterable[str]) -> Counter[str]:
    """Label or field to the number of answers that hold it."""
    return Counter(label for value in values for label in labels_in(value))


def show(value: str) -> str:
    """An answer for a person to read in a line.

    >>> show('["a","b"]'), show('{"spans":[{"field":"city","start":3,"end":7,"text":"Oslo"}]}'), show("[]")
    ('a, b', 'city: Oslo', '(none)')
    """
    parsed = _parsed(value)
    if parsed.kind == "classification":
        return value
    words = [f"{s.field}: {s.text}" for s in parsed.spans] if parsed.kind == "extraction" else parsed.labels
    return ", ".join(words) or "(none)"


def _items(value: str) -> frozenset[tuple[str, int, int]]:
    """Label, start and end of everything an answer says; labels that stand nowhere in the text have 0 and 0."""
    parsed = _parsed(value)
    if parsed.kind == "extraction":
        return frozenset((s.field, s.start, s.end) for s in parsed.spans)
    return frozenset((label, 0, 0) for label in parsed.labels)


def _of(items: frozenset[tuple[str, int, int]], label: str) -> frozenset[tuple[str, int, int]]:
    return frozenset(item for item in items if item[0] == label)


@lru_cache(maxsize=8192)
def _parsed(value: str) -> _Parsed:
    """A text that is not the canonical form of a set or of spans is a single label, whatever it looks like."""
    if value[:1] == "[" or value.startswith(SPANS):
        try:
            plain = json.loads(value)
            parsed = _labels(plain) if isinstance(plain, list) else _spans(plain["spans"])
        except (ValueError, TypeError, KeyError, RecursionError):
            parsed = None
        if parsed is not None and canonical_of(parsed) == value:
            return parsed
    return _Parsed("classification", (value,))


def canonical_of(parsed: _Parsed) -> str:
    """The text that a parsed answer has."""
    return spans_value(parsed.spans) if parsed.kind == "extraction" else labels_value(parsed.labels)


def _labels(plain: Sequence[object]) -> _Parsed | None:
    labels = tuple(one for one in plain if isinstance(one, str))
    return _Parsed("multi-label", labels) if len(labels) == len(plain) else None


def _spans(plain: Sequence[Mapping[str, object]]) -> _Parsed:
    spans = tuple(Span(**one) for one in plain)  # type: ignore[arg-type]
    return _Parsed("extraction", tuple(dict.fromkeys(s.field for s in spans)), spans)


def _json(plain: object) -> str:
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
