"""A queue that many tasks share: deficit round robin, with a first turn for whoever comes newly.

Every task has a line of its own. Lines take turns; a turn is worth ``quantum`` of cost (Shreedhar and Varghese, "Efficient fair
queueing using deficit round robin", SIGCOMM 1995). A task whose line was empty stands before those that have a backlog (the
new-flows list of FQ-CoDel, RFC 8290, section 4.2), so that a task that asks little is not made to wait a round by one that floods.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(slots=True)
class Line(Generic[Item]):
    """What one task waits for."""

    flow: str
    items: deque[tuple[Item, int]] = field(default_factory=deque)
    """Items with their costs."""
    deficit: int = 0
    listed: bool = False


class FairQueue(Generic[Item]):
    """See the module. Not safe to use from several threads."""

    def __init__(self, *, quantum: int) -> None:
        """``quantum``: cost that one turn is worth; 1 or more."""
        self._quantum = quantum
        self._lines: dict[str, Line[Item]] = {}
        self._new: deque[Line[Item]] = deque()
        self._old: deque[Line[Item]] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def waiting(self, flow: str) -> int:
        """Items of one flow."""
        line = self._lines.get(flow)
        return len(line.items) if line else 0

    def push(self, flow: str, item: Item, cost: int) -> None:
        """Stand at the end of the flow's line."""
        line = self._lines.setdefault(flow, Line(flow))
        line.items.append((item, cost))
        self._count += 1
        if not line.listed:
            line.listed, line.deficit = True, self._quantum
            self._new.append(line)

    def pop(self, may: Callable[[str], bool] = lambda _: True) -> tuple[str, Item] | None:
        """The next item and its flow; None when no flow that ``may`` go has any. Others keep their place and their credit."""
        held_new: list[Line[Item]] = []
        held_old: list[Line[Item]] = []
        try:
            return self._pop(may, held_new, held_old)
        finally:
            self._new.extendleft(reversed(held_new))
            self._old.extendleft(reversed(held_old))

    def _pop(self, may: Callable[[str], bool], held_new: list[Line[Item]], held_old: list[Line[Item]]) -> tuple[str, Item] | None:
        while self._new or self._old:
            lines, held = (self._new, held_new) if self._new else (self._old, held_old)
            line = lines[0]
            if not line.items:
                self._end_turn(lines, line)
            elif not may(line.flow):
                held.append(lines.popleft())
            elif line.deficit <= 0:
                line.deficit += self._quantum
                self._old.append(lines.popleft())
            else:
                item, cost = line.items.popleft()
                line.deficit -= cost
                self._count -= 1
                return line.flow, item
        return None

    def _end_turn(self, lines: deque[Line[Item]], line: Line[Item]) -> None:
        """An empty line of the new list waits one round in the old one, lest it come back as new for ever; then it is forgotten."""
        lines.popleft()
        if lines is self._new:
            self._old.append(line)
        else:
            line.listed = False
            del self._lines[line.flow]
