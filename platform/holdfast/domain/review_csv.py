"""The rows of a label request as a table that people fill in elsewhere, and the table read back.

>>> table = "capture_id,text,label\\nc-1,\\"two\\nlines\\",billing\\nc-2,later,\\nc-3,x,delivery\\n"
>>> read_answers(table)
((2, 'c-1', 'billing'), (5, 'c-3', 'delivery'))
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from holdfast.domain.ids import CaptureId
from holdfast.domain.review import ReviewRow
from holdfast.errors import DataInvalid

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula; such a text came from whoever asked the model."""
DELIMITERS = (",", ";", "\t")
"""Spreadsheets write what their language has."""


def write_rows(rows: Sequence[ReviewRow], texts: Mapping[CaptureId, str], *, shown: bool) -> str:
    """A CSV of the rows that wait, in the order they are asked; ``shown`` adds what the model answered.

    Texts that a spreadsheet would run get an apostrophe in front, which ``read_answers`` takes off an id.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["capture_id", "text", "label", *(["answer", "confidence"] if shown else [])])
    for row in rows:
        if row.is_open:
            said = [_harmless(row.said), f"{row.confidence:.3f}"] if shown else []
            writer.writerow([_harmless(row.capture_id), _harmless(texts.get(row.capture_id, "")), "", *said])
    return out.getvalue()


def read_answers(table: str) -> tuple[tuple[int, CaptureId, str], ...]:
    """Line, capture id and label of every line that has a label; the header is line 1, a cell may hold line breaks.

    Raises:
        DataInvalid: no such columns, a line without an id, an id that stands twice, or a table that is not CSV; with its line.
    """
    table = table.removeprefix("\ufeff")
    reader = csv.reader(io.StringIO(table, newline=""), delimiter=_delimiter(table), strict=True)
    found: list[tuple[int, CaptureId, str]] = []
    seen: dict[str, int] = {}
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        at = _columns(header)
        start = reader.line_num + 1
        for cells in reader:
            line, start = start, reader.line_num + 1
            capture_id, label = ((cells[n] if n < len(cells) else "").strip() for n in at)
            if not label:
                continue
            if not capture_id or capture_id in seen:
                problem = f"{capture_id} has a label on line {seen[capture_id]} already" if capture_id else "a label without a capture_id"
                raise _refused(problem, line)
            seen[capture_id] = line
            found.append((line, CaptureId(capture_id), label))
    except csv.Error as error:
        raise _refused(f"it is not CSV: {error}", reader.line_num) from None
    return tuple(found)


def _columns(header: Sequence[str]) -> tuple[int, int]:
    missing = [name for name in ("capture_id", "label") if name not in header]
    if missing:
        raise _refused(f"it has no column {' and no column '.join(missing)}; the columns are {', '.join(header) or 'none'}", 1)
    return header.index("capture_id"), header.index("label")


def _delimiter(table: str) -> str:
    first = table.split("\n", 1)[0]
    return max(DELIMITERS, key=first.count)


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def _refused(problem: str, line: int) -> DataInvalid:
    remedy = "send a CSV with the columns capture_id and label, as `holdfast review export` writes it; nothing of it was stored"
    return DataInvalid(source="of the table", problem=problem, place=f"line {line}", remedy=remedy)
