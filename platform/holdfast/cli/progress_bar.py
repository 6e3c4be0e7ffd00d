"""The progress bar of replays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


@contextmanager
def progress_bar(aside: Console, *, first: str, then: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on ``aside`` that hears how many steps of how many are done; ``first`` is what it says before it hears anything."""
    with Progress(*COLUMNS, console=aside, transient=True) as bar:
        job = bar.add_task(first, total=None)
        yield lambda done, total: bar.update(job, completed=done, total=total, description=then)


def replay_bar(aside: Console) -> AbstractContextManager[Callable[[int, int], None]]:
    """That of a replay."""
    return progress_bar(aside, first="training the first version", then="replaying")
