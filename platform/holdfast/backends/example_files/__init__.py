"""Files of examples and of dated history: CSV, TSV, JSONL and Parquet, gzip too. One clear error with line and column."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast.backends.example_files.columns import LABEL, LABELS, TEXT, TIME, pick
from holdfast.backends.example_files.rows import FileUnusable, Row, rows_of
from holdfast.backends.example_files.values import answer_of, instant, label_text, one_label, text_of
from holdfast.domain.datasets import Example, HistoryRow
from holdfast.domain.tasks import Kind

Say = Callable[[str], None]

__all__ = ["read_examples", "read_history", "read_labels"]


def read_examples(
    path: Path, *, text: str | None = None, label: str | None = None, kind: Kind = "classification", say: Say | None = None
) -> tuple[Example, ...]:
    """The labelled examples of a file, in its order. Whether spans fit their texts is not looked at: the audit tells of every row.

    Args:
        path: `.csv`, `.tsv`, `.jsonl` (or `.ndjson`), `.parquet`; the text forms also with `.gz`.
        text: name of the column of texts; absent means the first of the usual names that is there.
        label: name of the column of labels, likewise.
        kind: how a label is read (`labelling.read_answer`). For single labels a list-valued cell counts where it holds exactly one value.
        say: told, in one sentence, how many rows were left out because their label was none or several.

    Raises:
        DataInvalid: with line and column.
    """
    labelled = _labelled(path, (text, label), kind, say, strict=False)
    found = [Example(text=words, label=name, place=row.place) for row, words, name in labelled]
    return tuple(found)


def read_history(
    path: Path,
    *,
    text: str | None = None,
    label: str | None = None,
    time: str | None = None,
    kind: Kind = "classification",
    say: Say | None = None,
) -> tuple[HistoryRow, ...]:
    """The dated rows of a file in order of time, labelled as ``kind`` reads them; rows of one instant keep the order of the file.

    Times are ISO dates (without a zone: UTC), seconds or milliseconds since 1970, or a year.

    Raises:
        DataInvalid: with line and column.
    """
    dated = []
    column: str | None = None
    for row, words, name in _labelled(path, (text, label), kind, say, strict=True):
        column = column or pick(row, TIME, time, path, "time")
        dated.append((instant(row, column, path), words, name))
    dated.sort(key=lambda item: item[0])
    return tuple(HistoryRow(text=words, label=name, at=at, index=i) for i, (at, words, name) in enumerate(dated))


def read_labels(path: Path) -> tuple[tuple[str, str], ...]:
    """Pairs of capture id and label from a file with the columns `capture_id` (or `request_id`) and `label` (or `value`).

    A cell that is a list or a mapping (of labels, of spans) becomes its JSON: the task's contract says how it is read.
    """
    pairs: list[tuple[str, str]] = []
    names: tuple[str, str] | None = None
    for row in rows_of(path):
        names = names or (
            pick(row, ("capture_id", "request_id"), None, path, "capture_id"),
            pick(row, (*LABEL, "value"), None, path, "label"),
        )
        pairs.append((text_of(row, names[0], path), label_text(row, names[1], path)))
    return tuple(_some(pairs, path))


def _labelled(
    path: Path, columns: tuple[str | None, str | None], kind: Kind, say: Say | None, *, strict: bool
) -> Iterator[tuple[Row, str, str]]:
    kept, dropped = 0, 0
    names: tuple[str, str] | None = None
    for row in rows_of(path):
        names = names or (pick(row, TEXT, columns[0], path, "text"), pick(row, _usual(kind), columns[1], path, "label"))
        words = text_of(row, names[0], path)
        single = kind == "classification"
        name = one_label(row, names[1], path) if single else answer_of(row, names[1], path, kind=kind, text=words, strict=strict)
        if name is None:
            dropped += 1
            continue
        kept += 1
        yield row, words, name
    if dropped and say is not None and names is not None:
        say(f"{dropped} of {kept + dropped} rows were left out: column {names[1]} holds no or several values there")
    if not kept:
        _some([], path)


def _usual(kind: Kind) -> tuple[str, ...]:
    return LABEL if kind == "classification" else (*LABELS, *LABEL)


def _some(found: list[tuple[str, str]], path: Path) -> list[tuple[str, str]]:
    if not found:
        raise FileUnusable(source=str(path), place="the file", problem="it holds no usable row", remedy="give a file with at least one row")
    return found
