"""What a process of a home is: the record that composition hands to the supervisor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One process that belongs to a running home."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of the supervisor."""
    ready_url: str | None = None
    """Answers 2xx, 3xx, 401 or 403 when the process is ready; None: ready once it has lived for a second."""
    needs: tuple[str, ...] = ()
    """Names of the processes that must be ready before this one is started."""
