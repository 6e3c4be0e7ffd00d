"""Which column holds what: the name that was given, or the first of the usual names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.backends.example_files.rows import Row
from holdfast.errors import DataInvalid

TEXT = ("text", "title", "question", "utterance", "sentence", "query", "message", "body", "content", "input", "prompt", "description")
LABEL = ("label", "category", "intent", "class", "target", "primary_cat", "topic", "tag")
LABELS = ("labels", "spans", "slots", "entities", "tags", "categories")
"""Columns that hold sets of labels, or spans."""
TIME = ("time", "timestamp", "created", "created_at", "datetime", "date", "release_date", "published", "published_at", "updated", "at")


def pick(row: Row, usual: Sequence[str], given: str | None, path: Path, role: str) -> str:
    """The column of ``row`` for a role: ``given``, or the first of ``usual`` that is there, whatever its case.

    Raises:
        DataInvalid: when there is none.
    """
    there = list(row.values)
    listing = ", ".join(there[:20]) or "none"
    if given is not None:
        if given in row.values:
            return given
        raise DataInvalid(
            source=str(path), place=row.place, problem=f"it has no column {given!r}; the columns are {listing}",
            remedy="name one of them",
        )  # fmt: skip
    by_lower = {name.lower(): name for name in reversed(there)}
    for name in usual:
        if name in by_lower:
            return by_lower[name]
    raise DataInvalid(
        source=str(path), place=row.place, problem=f"no column is named like a {role}; the columns are {listing}",
        remedy=f"name it with --{role}" if role in ("text", "label", "time") else f"name the column {role}",
    )  # fmt: skip
