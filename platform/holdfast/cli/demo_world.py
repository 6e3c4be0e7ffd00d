"""The world that a story is told in: a contract, what is known before it begins, and a stream of texts that changes once.

The demonstration's own world is SYNTHETIC (`holdfast.testing.traffic`). Any other, of any kind of task, is told by the same story:
`tests/bench/bench_live_kinds.py` has real ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.bootstrap import home as bootstrap_home
from holdfast.domain.records import to_plain
from holdfast.domain.tasks import TaskContract
from holdfast.testing.traffic import Ticket, history, stream

__all__ = ["Ticket", "World", "synthetic", "world_of"]

STREAM_TICKETS = 100_000
"""More than any story lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a story needs to know of its world."""

    contract: TaskContract
    history: Sequence[Mapping[str, str]]
    """Rows `{text, label, source}` that version 1 is trained on; the labels are canonical texts."""
    tickets: Iterator[Ticket]
    """The traffic, none of it in ``history``; its labels are canonical texts."""
    before_events: int
    """Tickets before the change."""
    probe: str
    """A text that nobody minds to have asked."""
    changes: str
    """What the change is, in words."""

    @property
    def plain_contract(self) -> dict[str, Any]:
        """As it is sent."""
        found = to_plain(self.contract)
        assert isinstance(found, dict)
        return found


def world_of(contract: Path, past: Sequence[Ticket], tickets: Sequence[Ticket], *, source: str, changes: str) -> World:
    """A world of rows that are at hand, with the contract of a file. ``source``: what the rows of ``past`` are marked with."""
    return World(
        contract=bootstrap_home.read_contract(contract),
        history=[{"text": t.text, "label": t.label, "source": source} for t in past],
        tickets=iter(tickets), before_events=sum(not t.changed for t in tickets), probe=past[0].text, changes=changes,
    )  # fmt: skip


def synthetic(seed: int, history_rows: int, before_events: int) -> World:
    """The support tickets of the demonstration."""
    return World(
        contract=bootstrap_home.read_contract(Path(__file__).with_name("demo_contract.yaml")),
        history=[{"text": t.text, "label": t.label, "source": "synthetic"} for t in history(seed, history_rows)],
        tickets=stream(seed, STREAM_TICKETS, before_events), before_events=before_events, probe="where is my order",
        changes="new products and words; a plan change is now a matter for sales",
    )  # fmt: skip
