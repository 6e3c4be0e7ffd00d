"""Cells to texts, labels and instants; what cannot be read is refused with its place and column."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from pathlib import Path

from holdfast.backends.example_files.rows import Row
from holdfast.domain.captures import MAX_TEXT_CHARS
from holdfast.domain.labelling import MAX_LABEL_CHARS, read_answer
from holdfast.domain.tasks import Kind
from holdfast.errors import DataInvalid


def text_of(row: Row, column: str, path: Path) -> str:
    """The text of a cell: not blank, at most MAX_TEXT_CHARS, without control characters that no text has."""
    value = _cell(row, column, path)
    if not isinstance(value, str):
        raise _invalid(row, column, path, f"it is not a text but {value!r:.40}", "give a text in quotes")
    if not value.strip():
        raise _invalid(row, column, path, "the text is empty", "drop the row or fill it in")
    if len(value) > MAX_TEXT_CHARS:
        raise _invalid(row, column, path, f"the text has {len(value)} characters; {MAX_TEXT_CHARS} are allowed", "shorten it")
    if "\0" in value:
        raise _invalid(row, column, path, "the text is binary", "give readable text")
    return value


def one_label(row: Row, column: str, path: Path) -> str | None:
    """The label of a cell; None when a list-valued cell holds no or several values."""
    value = _cell(row, column, path)
    if isinstance(value, list):
        if len(value) != 1:
            return None
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _invalid(row, column, path, f"it is not a label but {value!r:.40}", "give a short text as label")
    label = str(value).strip()
    if not label:
        raise _invalid(row, column, path, "the label is empty", "drop the row or label it")
    if len(label) > MAX_LABEL_CHARS or "\0" in label:
        raise _invalid(row, column, path, f"a label has at most {MAX_LABEL_CHARS} characters", "check that this is the column of labels")
    return label


def answer_of(row: Row, column: str, path: Path, *, kind: Kind, text: str, strict: bool) -> str:
    """The canonical text of a cell that holds labels or spans of ``text``; ``strict``: which must fit it."""
    try:
        return read_answer(kind, _cell(row, column, path), text, strict=strict)
    except DataInvalid as error:
        raise _invalid(row, column, path, str(error.fields["problem"]), str(error.fields["remedy"])) from None


def label_text(row: Row, column: str, path: Path) -> str:
    """A cell as a text that a contract can read: a list or a mapping as its JSON."""
    value = _cell(row, column, path)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise _invalid(row, column, path, f"it is not a label but {value!r:.40}", "give a label, a list of labels or of spans")
    return str(value).strip()


def instant(row: Row, column: str, path: Path) -> datetime:
    """The instant of a cell, aware, in UTC."""
    value = _cell(row, column, path)
    try:
        found = _instant(value)
    except (ValueError, OverflowError, OSError):
        found = None
    if found is None:
        raise _invalid(row, column, path, f"{value!r:.40} is not a time", "write ISO dates (2026-03-01T12:00:00Z) or seconds since 1970")
    return found


def _instant(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return _aware(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, str):
        try:
            return _aware(datetime.fromisoformat(value.strip()))
        except ValueError:
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if value == int(value) and 1900 <= value <= 2100:
        return datetime(int(value), 1, 1, tzinfo=UTC)
    # 1e11 seconds lie in the year 5138, 1e11 milliseconds in 1973: no real history is ambiguous.
    return datetime.fromtimestamp(value / 1000 if abs(value) > 1e11 else value, tz=UTC)


def _aware(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _cell(row: Row, column: str, path: Path) -> object:
    value = row.values.get(column)
    if value is None:
        raise _invalid(row, column, path, "the value is missing", "drop the row or fill it in")
    return value


def _invalid(row: Row, column: str, path: Path, problem: str, remedy: str) -> DataInvalid:
    return DataInvalid(source=str(path), place=f"{row.place}, column {column}", problem=problem, remedy=remedy)
