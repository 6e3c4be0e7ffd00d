"""Diagnosis: the named cause of an alert and the action that fits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Cause = Literal["input drift", "new class", "concept change", "upstream break", "serving regression", "undetermined"]
Action = Literal["retrain", "ask for labels", "roll back", "wait"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A cause, the action that fits it, and the evidence both rest on."""

    cause: Cause
    action: Action
    sentence: str
    """One sentence in words, with the top contributors."""
    evidence: Mapping[str, float] = field(default_factory=dict)
