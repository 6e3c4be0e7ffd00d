"""What a backtest has instead of the parts that people look at. They decide nothing, so a replay decides what the stack would."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.gates import Verdict
from holdfast.domain.ids import TaskName
from holdfast.domain.windows import WindowRows
from holdfast.ports import RunFacts


class NoRegistry:
    """A registry that keeps nothing."""

    def record(self, facts: RunFacts, folder: Path) -> AdapterVersion:
        """The version as it is: it stays unregistered."""
        return facts.version

    def tag_verdict(self, version: AdapterVersion, verdict: Verdict) -> None:
        """Nothing."""

    def aliases(self, task: TaskName) -> Mapping[str, str]:
        """None."""
        return {}

    def set_alias(self, task: TaskName, alias: str, registry_version: str | None) -> None:
        """Nothing."""


class NoReporter:
    """A reporter without a page."""

    def report(
        self, task: TaskName, reference: WindowRows, current: WindowRows, *, at: datetime, figures: Mapping[str, float] | None = None
    ) -> tuple[Mapping[str, float], str]:
        """No metric, no page."""
        return {}, ""


class NoDoorbell:
    """Nobody listens: the replay looks after every batch anyway."""

    def ring(self, job: str, *ids: str) -> None:
        """Nothing."""
