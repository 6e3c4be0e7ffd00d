"""What commands print: tables on a terminal, tab-separated lines off it, JSON where asked; notes and progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from holdfast.domain.records import to_plain

Cell = str | int | float | bool | None


def notes() -> Console:
    """The console of everything that is not the result."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One note for the person who typed the command."""
    print(text, file=sys.stderr, flush=True)


def as_json(value: object) -> None:
    """The result as JSON."""
    print(json.dumps(to_plain(value), indent=2, ensure_ascii=False))


def line(text: str) -> None:
    """One line of the result."""
    print(text)


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, title: str = "") -> None:
    """A table; off a terminal one line per row, cells between tabs, the first line names the columns."""
    plain = [[text(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for cells in (columns, *plain):
            print("\t".join(" ".join(cell.split()) for cell in cells))
        return
    drawn = Table(*columns, title=title or None, title_justify="left", header_style="bold")
    for cells in plain:
        drawn.add_row(*(_coloured(cell) for cell in cells))
    Console(highlight=False).print(drawn)


def text(cell: Cell) -> str:
    """A cell in words; nothing is a dash, numbers keep four digits."""
    if cell is None or cell == "":
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def short(digest: str | None) -> str | None:
    """The first twelve digits of a digest, as people compare them."""
    return digest.removeprefix("sha256:")[:12] if digest else None


def ago(moment: datetime | str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> str | None:
    """How long ago an instant was."""
    if moment is None:
        return None
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    seconds = (now() - at).total_seconds()
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


_COLOURS = {
    "ready": "green", "pass": "green", "quiet": "green", "ok": "green", "promoted": "green", "live": "green",
    "bad": "red", "fail": "red", "alarm": "red", "failed": "red", "refused": "red", "open": "red", "silent": "red", "restarting": "red",
    "warn": "yellow", "need more": "yellow", "watching": "yellow", "starting": "yellow", "waiting": "yellow", "acknowledged": "yellow",
}  # fmt: skip


def _coloured(cell: str) -> str:
    from rich.markup import escape

    colour = _COLOURS.get(cell)
    return f"[{colour}]{escape(cell)}[/{colour}]" if colour else escape(cell)
