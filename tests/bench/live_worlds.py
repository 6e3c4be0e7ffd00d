"""Two worlds of real rows for a story of the loop: SNIPS requests with their slots, Kubernetes release notes with the groups that own each.

Texts, spans and sets are as people wrote them; their order is made. SNIPS: four intents, then seven requests in ten are of the three
others, with fields that nobody knew. Kubernetes: notes that are owned by eight groups alone, then the notes of everybody.
A text that repeats counts once, and no text of the past comes again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.bench_kinds import lines_of
from tests.bench.snips_history import FIRST

from holdfast.cli.demo_world import Ticket, World, world_of
from holdfast.domain.answers import Span, labels_value, spans_value
from holdfast.domain.splits import normalised

CONTRACTS = Path(__file__).parent / "contracts"
GROUPS = frozenset({"apps", "cloud-provider", "network", "node", "scheduling", "storage", "testing", "windows"})
"""Whose notes are known at first."""
NEW_FOR_OLD = 7 / 3
"""SNIPS requests of the new intents for one of the old, after the change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A text with its canonical answer."""

    text: str
    answer: str
    known: bool
    """Whether its like is known before the change."""


def snips(data: Path, history_rows: int = 1500, before_events: int = 300) -> World:
    """An extraction: 13,577 requests with 39 fields, of which 33 are known at first."""
    rows = [
        Row(
            text=line["text"], known=line["intent"] in FIRST,
            answer=spans_value(Span(field=s["slot"], start=s["start"], end=s["end"], text=s["value"]) for s in line["slots"]),
        )
        for line in lines_of(data / "snips_slots" / "train.jsonl")
    ]  # fmt: skip
    new_count = sum(not row.known for row in rows)
    past, traffic = _ordered(rows, history_rows, before_events, known_after=round(new_count / NEW_FOR_OLD))
    changes = "seven requests in ten are of three new intents, with fields that nobody knew"
    return world_of(CONTRACTS / "snips-requests.yaml", past, traffic, source="file", changes=changes)


def k8s(data: Path, history_rows: int = 650, before_events: int = 200) -> World:
    """A multi-label task: 2,635 notes with any of 21 groups, of which eight are known at first."""
    rows = [
        Row(text=line["text"], answer=labels_value(line["sigs"]), known=set(line["sigs"]) <= GROUPS)
        for line in lines_of(data / "k8s_release_notes" / "k8s_release_notes_1.20_1.28.jsonl")
    ]
    past, traffic = _ordered(rows, history_rows, before_events, known_after=len(rows))
    changes = "the notes of thirteen other groups come to the same task"
    return world_of(CONTRACTS / "k8s-notes.yaml", past, traffic, source="file", changes=changes)


def _ordered(rows: Iterable[Row], history_rows: int, before_events: int, *, known_after: int) -> tuple[list[Ticket], list[Ticket]]:
    """The past, and the traffic: ``before_events`` of the known, then all that is new among at most ``known_after`` of the known."""
    once = list({normalised(row.text): row for row in rows}.values())
    chance = random.Random(1)
    chance.shuffle(once)
    known = [row for row in once if row.known]
    first = history_rows + before_events
    later = [row for row in once if not row.known] + known[first : first + known_after]
    chance.shuffle(later)
    tickets = [
        Ticket(text=row.text, label=row.answer, index=index, changed=index >= first) for index, row in enumerate([*known[:first], *later])
    ]
    return tickets[:history_rows], tickets[history_rows:]
