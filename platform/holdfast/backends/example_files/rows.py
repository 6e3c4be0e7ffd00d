"""Rows of a file, whatever its format, with the place where they stand: the line of a text file, whose header is line 1."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import DataInvalid

MAX_BYTES = 4 * 1024**3
"""Of unpacked text; a gzip file that unpacks to more is refused."""
MAX_CELL_CHARS = 16 * 1024**2
_FORMATS = "CSV, TSV, JSONL or Parquet (.csv .tsv .jsonl .ndjson .parquet, the text forms also with .gz)"


@dataclass(frozen=True, slots=True)
class Row:
    """One row."""

    place: str
    """`line 3` of a text file, the first is 1; `row 3` of Parquet, which has no lines."""
    values: Mapping[str, object]


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a file, one at a time.

    Raises:
        DataInvalid: when the file is missing, empty, binary, wrongly encoded, or a row does not parse.
    """
    if not path.is_file():
        raise _unusable(path, "it is a folder" if path.is_dir() else "it does not exist", "check the path")
    if path.stat().st_size == 0:
        raise _unusable(path, "it is empty", "give a file with at least one row")
    suffixes = [s.lower() for s in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if packed else suffixes)[-1:]
    if kind == [".parquet"] and not packed:
        return _parquet(path)
    if kind in ([".csv"], [".tsv"]):
        return _csv(path, packed)
    if kind in ([".jsonl"], [".ndjson"]):
        return _jsonl(path, packed)
    raise _unusable(path, "its name does not say its format", f"give {_FORMATS}")


def _lines(path: Path, packed: bool) -> Iterator[str]:
    """Decoded lines with their ends."""
    taken, number = 0, 0
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            for raw in file:
                number += 1
                taken += len(raw)
                if taken > MAX_BYTES:
                    raise _invalid(path, f"line {number}", f"it holds more than {MAX_BYTES // 1024**3} GiB of text", "split the file")
                if b"\0" in raw:
                    raise _invalid(path, f"line {number}", "it is binary", f"give {_FORMATS}")
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        problem = f"byte {error.start + 1} of the line is not UTF-8"
        raise _invalid(path, f"line {number}", problem, "save the file as UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _invalid(path, f"line {number + 1}", f"it does not unpack ({error})", "pack the file again with gzip") from None
    except OSError as error:
        raise _unusable(path, f"it cannot be read ({error.strerror or error})", "check its permissions") from None


def _csv(path: Path, packed: bool) -> Iterator[Row]:
    lines = _lines(path, packed)
    head = next(lines, "")
    if not head.strip():
        raise _invalid(path, "line 1", "it is empty", "give a header and at least one row")
    delimiter = max("\t,;|", key=head.count)
    csv.field_size_limit(MAX_CELL_CHARS)
    reader = csv.reader(_chained(head, lines), delimiter=delimiter, strict=True)
    number = 1
    try:
        names = [name.strip() for name in next(reader, [])]
        _check_header(names, path)
        number = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(names):
                problem = f"it has {len(cells)} cells, the header has {len(names)}"
                raise _invalid(path, f"line {number}", problem, "put texts with commas in double quotes")
            if cells:
                yield Row(f"line {number}", dict(zip(names, cells, strict=True)))
            number = reader.line_num + 1
    except csv.Error as error:
        raise _invalid(
            path, f"line {number}", f"it is not CSV ({error})", "put texts in double quotes and double the quotes inside"
        ) from None


def _check_header(names: list[str], path: Path) -> None:
    if len(names) != len(set(names)):
        doubled = sorted({name for name in names if names.count(name) > 1})
        raise _invalid(path, "line 1", f"the column {doubled[0]!r} is there twice", "give every column a name of its own")
    if len(names) < 2:
        raise _invalid(path, "line 1", "it has only one column", "give a header and a column for the text and one for the label")


def _jsonl(path: Path, packed: bool) -> Iterator[Row]:
    for number, line in enumerate(_lines(path, packed), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            where = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            raise _invalid(path, f"line {number}{where}", "it is not JSON", "write one JSON object per line") from None
        if not isinstance(values, dict):
            raise _invalid(path, f"line {number}", "it is not a JSON object", 'write one object per line, such as {"text": …, "label": …}')
        yield Row(f"line {number}", values)


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"row {number}", values)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise _invalid(path, f"row {number + 1}", f"it is not a readable Parquet file ({reason})", "write it again") from None


def _chained(head: str, rest: Iterator[str]) -> Iterator[str]:
    yield head
    yield from rest


class FileUnusable(DataInvalid):
    """The file {source} cannot be used: {problem}.

    Mend: {remedy}
    """


def _unusable(path: Path, problem: str, remedy: str) -> FileUnusable:
    return FileUnusable(source=str(path), place="the file", problem=problem, remedy=remedy)


def _invalid(path: Path, place: str, problem: str, remedy: str) -> DataInvalid:
    return DataInvalid(source=str(path), place=place, problem=problem, remedy=remedy)
