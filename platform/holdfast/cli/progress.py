"""Progress on stderr: a live picture on a terminal, one line per change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.live import Live
from rich.table import Table

from holdfast.cli.run_files import HomeStatus, read_status
from holdfast.cli.show import notes

_SIGNS = {"ready": "[green]ready[/]", "starting": "[yellow]starting[/]", "restarting": "[red]died, starts again[/]"}


def follow_start(home: Path, alive: Callable[[], bool]) -> None:
    """Show the processes of a home until all are ready or the supervisor is gone."""
    console = notes()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=8, transient=True) as live:
            for status in _statuses(home, alive):
                live.update(_picture(status))
        return
    told: dict[str, str] = {}
    for status in _statuses(home, alive):
        for child in status.children:
            if told.get(child.name) != child.state and child.state in ("ready", "restarting"):
                console.print(f"{child.name} {'is ready' if child.state == 'ready' else 'died and starts again'}")
            told[child.name] = child.state


def _statuses(home: Path, alive: Callable[[], bool]) -> Iterator[HomeStatus]:
    while alive():
        status = read_status(home / "run")
        if status is not None:
            yield status
            if status.state == "running":
                return
        time.sleep(0.1)


def _picture(status: HomeStatus) -> Table:
    picture = Table.grid(padding=(0, 2))
    for child in status.children:
        picture.add_row(child.name, _SIGNS.get(child.state, f"[dim]{child.state}[/]"), child.url or "")
    return picture
