"""Drill: a change planted into a shadow copy of recent traffic, as records and the pure work on them.

A stream is a random order of recent captures, each at most once: resampling with replacement would itself look like a change, for
a small pool differs from the reference it is compared with. Only the planted events are new.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from holdfast.domain.captures import Capture, Label, LabelledCapture
from holdfast.domain.drill_texts import mistyped, noisy, out_of_domain, swapped_labels, truncated
from holdfast.domain.ids import CaptureId
from holdfast.errors import RequestInvalid

Change = Literal["noise", "typos", "new-class", "label-swap", "mix-shift", "truncation"]
CHANGES: tuple[Change, ...] = get_args(Change)
OF_TEXTS: tuple[Change, ...] = ("noise", "typos", "new-class", "truncation")
"""Changes that need answers to other texts."""
RIGHTLY_NAMED: Mapping[Change, frozenset[str]] = {
    "noise": frozenset({"upstream break", "input drift"}), "typos": frozenset({"input drift", "upstream break"}),
    "new-class": frozenset({"new class"}), "label-swap": frozenset({"concept change"}),
    "mix-shift": frozenset({"input drift"}), "truncation": frozenset({"upstream break"}),
}  # fmt: skip
"""Causes that a diagnosis may give to each change without misleading whoever reads it."""
NEW_LABEL = "planted class"
POWER = 0.9
"""Share of replicates that must see a change for it to count as one that would be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillPlan:
    """What is planted, how much of it, and how often it is tried."""

    changes: tuple[Change, ...] = CHANGES
    shares: tuple[float, ...] = (0.1, 0.25, 0.5)
    """Shares of the events after the change that are changed."""
    events: int = 300
    """Events after the change, within which it must be seen."""
    quiet_events: int = 200
    """Events before it."""
    replicates: int = 20
    seed: int = 0

    @property
    def captures_needed(self) -> int:
        """Captures of one stream."""
        return self.quiet_events + self.events


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one replicate showed."""

    delay: int | None
    """Events from the change to the first alarm; None when it was not seen."""
    monitor: str = ""
    cause: str = ""
    """As diagnosed once fifty more events had come, or the stream had ended."""
    false_alarm: bool = False
    """An alarm stood before the change; nothing can be said of the change then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillRow:
    """All replicates of one change and share."""

    change: Change
    share: float
    replicates: int
    seen: int
    false_alarms: int
    delay_median: float | None
    """Events to the alarm, over the replicates that saw it."""
    delay_q90: float | None
    first_monitor: str
    """The monitor that most often alarmed first."""
    causes: Mapping[str, int]
    """Diagnosed cause to the number of replicates."""
    named_rightly: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """The result. It depends on the captures, the champion and the plan alone."""

    task: str
    adapter_digest: str
    capture_count: int
    """Recent captures that streams were drawn from."""
    labelled_count: int
    events: int
    quiet_events: int
    seed: int
    run_length_events: int
    rows: tuple[DrillRow, ...]
    smallest: Mapping[str, float | None]
    """Change to the smallest share tried that at least nine replicates in ten saw; None where no share was."""


def check_plan(plan: DrillPlan) -> None:
    """Raises RequestInvalid at the first number out of its range."""
    limits = {"events": (20, 100_000), "quiet_events": (20, 100_000), "replicates": (1, 1_000)}
    for name, (low, high) in limits.items():
        if not low <= getattr(plan, name) <= high:
            raise RequestInvalid(place=name, problem=f"it must lie in {low} .. {high}", remedy=f"give another {name}")
    if not plan.shares or not all(0.0 <= share <= 1.0 for share in plan.shares):
        raise RequestInvalid(place="share", problem="each share must lie in 0 .. 1", remedy="write, for instance, --share 0.1,0.5")


def changed_text(text: str, change: Change, *, seed: int, index: int, strangers: Sequence[str] = ()) -> str:
    """The text under a change; those that touch no text leave it as it is.

    Args:
        strangers: texts of the new class; without any they are made up.
    """
    chance = random.Random(f"{change} {seed} {index}")
    if change == "new-class":
        return strangers[index % len(strangers)] if strangers else out_of_domain(chance)
    if change == "truncation":
        return truncated(text)
    if change in ("noise", "typos"):
        return noisy(text, chance) if change == "noise" else mistyped(text, chance)
    return text


def planted(
    pool: Sequence[LabelledCapture | Capture], change: Change, answered: Mapping[int, Capture]
) -> dict[int, LabelledCapture | Capture]:
    """Index in ``pool`` to what stands there once it is changed.

    Args:
        answered: index to the capture of its changed text, where the change is one of texts.
    """
    if change == "label-swap":
        partner = swapped_labels(row.label.value for row in pool if isinstance(row, LabelledCapture))
        return {n: _labelled(row, partner[row.label.value]) if isinstance(row, LabelledCapture) else row for n, row in enumerate(pool)}
    if change == "mix-shift":
        return _one_label(pool)
    label = NEW_LABEL if change == "new-class" else None
    return {n: _answered_anew(row, answered[n], label) for n, row in enumerate(pool)}


def stream(
    pool: Sequence[LabelledCapture | Capture],
    changed: Mapping[int, LabelledCapture | Capture],
    plan: DrillPlan,
    *,
    share: float,
    replicate: int,
) -> list[LabelledCapture | Capture]:
    """One replicate: quiet events, then events of which ``share`` are changed; seqs from 1. Orders are the same for every change and
    share, and what a smaller share changes a larger one changes too."""
    chance = np.random.default_rng([plan.seed, replicate])
    order = chance.permutation(len(pool))[: plan.captures_needed]
    draws = chance.random(len(order))
    found = []
    for place, (index, draw) in enumerate(zip(order.tolist(), draws, strict=True)):
        hit = place >= plan.quiet_events and draw < share
        found.append(_renamed(changed[index] if hit else pool[index], replicate, place + 1))
    return found


def summed_up(change: Change, share: float, sightings: Sequence[Sighting]) -> DrillRow:
    """The row of one change and share. Needs at least one replicate."""
    seen = [s for s in sightings if s.delay is not None]
    delays = [s.delay for s in seen if s.delay is not None]
    first = Counter(s.monitor for s in seen)
    return DrillRow(
        change=change, share=share, replicates=len(sightings), seen=len(seen), false_alarms=sum(s.false_alarm for s in sightings),
        delay_median=float(np.median(delays)) if delays else None, delay_q90=float(np.quantile(delays, 0.9)) if delays else None,
        first_monitor=min(first, key=lambda name: (-first[name], name)) if first else "",
        causes=dict(sorted(Counter(s.cause for s in seen).items())), named_rightly=sum(s.cause in RIGHTLY_NAMED[change] for s in seen),
    )  # fmt: skip


def smallest_seen(rows: Sequence[DrillRow]) -> dict[str, float | None]:
    """Change to the smallest share that at least ``POWER`` of its replicates saw."""
    changes = dict.fromkeys(row.change for row in rows)
    return {
        change: min((r.share for r in rows if r.change == change and r.seen >= POWER * r.replicates), default=None) for change in changes
    }


def capture_of(row: LabelledCapture | Capture) -> Capture:
    return row.capture if isinstance(row, LabelledCapture) else row


def _one_label(pool: Sequence[LabelledCapture | Capture]) -> dict[int, LabelledCapture | Capture]:
    """In the place of each row one that was answered with the commonest label."""
    said = Counter(capture_of(row).prediction.label for row in pool)
    commonest = min(said, key=lambda label: (-said[label], label))
    alike = [row for row in pool if capture_of(row).prediction.label == commonest]
    return {n: alike[n % len(alike)] for n in range(len(pool))}


def _answered_anew(row: LabelledCapture | Capture, capture: Capture, label: str | None) -> LabelledCapture | Capture:
    if isinstance(row, Capture):
        return capture
    return LabelledCapture(capture=capture, label=row.label if label is None else replace(row.label, value=label))


def _labelled(row: LabelledCapture, value: str) -> LabelledCapture:
    return replace(row, label=replace(row.label, value=value))


def _renamed(row: LabelledCapture | Capture, replicate: int, seq: int) -> LabelledCapture | Capture:
    """An event of its own: a capture that stands in a stream twice is two events."""
    name = CaptureId(f"drill-{replicate}-{seq}")
    capture = replace(capture_of(row), capture_id=name, seq=seq)
    if isinstance(row, Capture):
        return capture
    label: Label = replace(row.label, capture_id=name, seq=seq)
    return LabelledCapture(capture=capture, label=label)
