"""What a diagnosis is made from, and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from holdfast.domain.captures import Capture, LabelledCapture
from holdfast.domain.scorers import Scorers
from holdfast.domain.windows import ReferenceWindow

Cause = Literal[
    "input drift", "new class", "new topic", "vocabulary shift", "mix shift", "concept change", "upstream break", "label source",
    "serving regression", "undetermined",
]  # fmt: skip
Action = Literal["retrain", "ask for labels", "roll back", "wait"]
MIN_LABELLED = 10
"""Fewer labelled captures say nothing about errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareChange:
    """One line of the evidence: a share now and before, with the interval of the difference (Newcombe, 98%)."""

    name: str
    before: float
    now: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Novel inputs that are like one another."""

    row_count: int
    terms: tuple[str, ...]
    """Words that tell them from the known texts, most telling first."""
    examples: tuple[str, ...]
    """The texts nearest the middle, cut to a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """Rows that no training may use: labelled captures since the onset that show a sign of an upstream break, or carry a bad source."""

    since_seq: int
    sign: str = ""
    """A sign of `symptoms`; empty where a source is meant."""
    char_count: int = 0
    """Length at which texts were cut, for the sign that looks at lengths."""
    source: str = ""
    """Source of labels; empty where a sign is meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A cause, the action that fits it, and the evidence both rest on."""

    cause: Cause
    action: Action
    sentence: str
    """One sentence in words, with the top contributors."""
    evidence: Mapping[str, float] = field(default_factory=dict)
    also: tuple[Cause, ...] = ()
    """Other causes that hold on the rows which the first does not explain."""
    changes: tuple[ShareChange, ...] = ()
    """Shares that moved, the surest first."""
    groups: tuple[Group, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """What a diagnosis is made from."""

    reference: ReferenceWindow
    scorers: Scorers
    recent: Sequence[Capture]
    """Captures since the change."""
    labelled: Sequence[LabelledCapture]
    """Those of them that have a label."""
    known_labels: frozenset[str]
    """Labels of the adapter that answers."""
    alarmed: frozenset[str]
    """Monitors in alarm."""
    before: Sequence[Capture] = ()
    """Captures of the same version before the change, as far as they are at hand; without them, what needs them is not claimed."""
    labelled_before: Sequence[LabelledCapture] = ()
    onset_seq: int = 0
    input_alarm_acts: bool = False
    serving_suspect: bool = False
    """The replicas answer with something else than what was judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One cause that holds, with its part of the sentence."""

    cause: Cause
    sentence: str
    evidence: Mapping[str, float] = field(default_factory=dict)
    changes: tuple[ShareChange, ...] = ()
    groups: tuple[Group, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
