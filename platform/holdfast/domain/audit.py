"""The audit of a data set before anything is stored: what is wrong with it, and what a person should know of it."""

from __future__ import annotations

import math
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.domain.answers import label_counts
from holdfast.domain.captures import MAX_TEXT_CHARS
from holdfast.domain.datasets import Example
from holdfast.domain.labelling import problem_of
from holdfast.domain.tasks import TaskContract
from holdfast.errors import DataInvalid, Problem

FEW_ROWS = 10
"""A class with fewer rows cannot be split into training and held-out rows that say anything."""
IMBALANCE = 20.0
"""The largest class has so many times the rows of the smallest: worth a warning."""
SHOWN = 20
"""Mistakes listed at most; the counts are always whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthQuantiles:
    """Characters per text."""

    least: int
    median: int
    p95: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What a look at every row found. ``errors`` make the data unusable; ``warnings`` do not."""

    row_count: int
    text_count: int
    """Distinct texts after normalisation."""
    empty_count: int
    duplicate_count: int
    """Rows beyond the first with the same normalised text and the same label."""
    conflict_count: int
    """Distinct texts that carry more than one answer."""
    one_class: bool
    label_counts: Mapping[str, int]
    """Label or field to the rows that hold it, most frequent first."""
    length: LengthQuantiles | None
    """None when there is no row."""
    error_count: int
    errors: tuple[Problem, ...]
    """The first of them."""
    warnings: tuple[str, ...]


def normalised(text: str) -> str:
    """The form in which two texts count as the same: NFKC, case folded, runs of blanks made one.

    >>> normalised("  Where\\u00a0IS my card ") == normalised("where is my card")
    True
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def audit(examples: Sequence[Example], contract: TaskContract, *, source: str = "sent") -> Audit:
    """The audit of usable data.

    Raises:
        DataInvalid: at the first mistake, with its place (its row, from 1, where the example names none) and how many more there are.

    >>> from holdfast.domain.tasks import parse_contract
    >>> contract = parse_contract({"task": "t", "labels": ["a", "b"], "floor": 0.8})
    >>> rows = [Example(text="one", label="a"), Example(text="One ", label="a"), Example(text="two", label="b")]
    >>> found = audit(rows, contract)
    >>> found.row_count, found.duplicate_count, found.conflict_count
    (3, 1, 0)
    >>> inspect_examples([*rows, Example(text=" ", label="b")], contract).errors[0].place
    'row 4'
    """
    found = inspect_examples(examples, contract)
    if found.errors:
        first, more = found.errors[0], found.error_count - 1
        problem = first.message + (f", and {more} more mistake(s)" if more else "")
        raise DataInvalid(source=source, problem=problem, place=first.place, remedy=_remedy(first.message))
    return found


def inspect_examples(examples: Sequence[Example], contract: TaskContract) -> Audit:
    """The audit of any data, mistakes included: what `data audit` shows.

    >>> from holdfast.domain.tasks import parse_contract
    >>> contract = parse_contract({"task": "t", "labels": ["a", "b"], "floor": 0.8})
    >>> [str(problem) for problem in inspect_examples([Example(text="one", label="c")], contract).errors]
    ["row 1: the label 'c' is not one of the contract (a, b)", 'label: every row has the same label; at least two classes are needed']
    """
    labels_of: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        labels_of[normalised(example.text)].add(example.label)
    counts, values = label_counts(example.label for example in examples), {example.label for example in examples}
    conflicts = sum(len(labels) > 1 for labels in labels_of.values())
    pairs = sum(len(labels) for labels in labels_of.values())
    errors = _errors(examples, contract, len(values))
    ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return Audit(
        row_count=len(examples),
        text_count=len(labels_of),
        empty_count=sum(not example.text.strip() for example in examples),
        duplicate_count=len(examples) - pairs,
        conflict_count=conflicts,
        one_class=len(values) == 1,
        label_counts=ordered,
        length=_length_quantiles(examples),
        error_count=len(errors),
        errors=tuple(errors[:SHOWN]),
        warnings=tuple(_warnings(ordered, len(examples) - pairs, conflicts)),
    )


def _errors(examples: Sequence[Example], contract: TaskContract, value_count: int) -> list[Problem]:
    if not examples:
        return [Problem("the data", "there is no row")]
    problems = []
    for number, example in enumerate(examples, start=1):
        wrong = _row_error(example, contract)
        if wrong is not None:
            problems.append(Problem(example.place or f"row {number}", wrong))
    if value_count < 2:
        problems.append(Problem("label", "every row has the same label; at least two classes are needed"))
    return problems


def _row_error(example: Example, contract: TaskContract) -> str | None:
    """The first thing wrong with one row; None when it is usable."""
    text = example.text
    if not text.strip():
        return "the text is empty"
    if len(text) > MAX_TEXT_CHARS:
        return f"the text is huge ({len(text):,} characters, {MAX_TEXT_CHARS:,} at most)"
    if is_binary(text):
        return "the text is binary, not text"
    return problem_of(example.label, text, contract)


def is_binary(text: str) -> bool:
    """Whether a text holds a NUL or a lone surrogate, or control and replacement characters make up more than a tenth of it.

    >>> is_binary("plain\\ttext\\n"), is_binary("\\x00\\x01"), is_binary("\\ufffd\\ufffdPNG")
    (False, True, True)
    """
    odd = 0
    for char in text:
        if char == "\x00" or "\ud800" <= char <= "\udfff":
            return True
        odd += char == "\ufffd" or (char < " " and char not in "\t\n\r\f")
    return odd > len(text) / 10


def _warnings(label_counts: Mapping[str, int], duplicates: int, conflicts: int) -> list[str]:
    warnings = []
    few = [f"{label} ({count})" for label, count in label_counts.items() if count < FEW_ROWS]
    if few:
        more = f" and {len(few) - SHOWN} more" if len(few) > SHOWN else ""
        warnings.append(f"fewer than {FEW_ROWS} rows: {', '.join(few[:SHOWN])}{more}")
    if len(label_counts) > 1:
        most, least = max(label_counts.values()), min(label_counts.values())
        if most >= IMBALANCE * least:
            warnings.append(f"imbalance: the largest class has {most / least:.0f} times the rows of the smallest")
    if duplicates:
        warnings.append(f"{duplicates} duplicate row(s); equal texts are kept in one split")
    if conflicts:
        warnings.append(f"{conflicts} text(s) carry more than one label or answer; one of them is wrong")
    return warnings


def _length_quantiles(examples: Sequence[Example]) -> LengthQuantiles | None:
    if not examples:
        return None
    lengths = sorted(len(example.text) for example in examples)
    return LengthQuantiles(least=lengths[0], median=_at(lengths, 0.5), p95=_at(lengths, 0.95), most=lengths[-1])


def _at(ordered: Sequence[int], share: float) -> int:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _remedy(message: str) -> str:
    if "not one of the contract" in message:
        return "correct the labels, add them to the contract, or set `labels_open: true` in it; nothing was stored"
    if "at least two classes" in message or "no row" in message:
        return "bring rows of at least two classes; nothing was stored"
    return "correct or remove the named rows and send the data again"
