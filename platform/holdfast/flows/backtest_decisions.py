"""What the loop decided in a replay, read from its ledger after every look."""

from __future__ import annotations

import json
from typing import Any

from holdfast.domain.comparison import Decision, DecisionKind
from holdfast.domain.ledger import LedgerEntry
from holdfast.ports import House

KINDS: dict[str, DecisionKind] = {
    "alert.opened": "alert", "alert.diagnosed": "diagnosis", "retraining.requested": "retraining requested",
    "retraining.held": "retraining held", "verdict.given": "verdict", "promotion.committed": "promotion",
}  # fmt: skip


class DecisionLog:
    """Ledger entries as decisions, each with the event that the loop had seen when it was written."""

    def __init__(self, house: House) -> None:
        self._house, self._after = house, 0
        self.found: list[Decision] = []

    def skip(self) -> None:
        """Leave out what stands in the ledger by now: the first version."""
        self._new()

    def note(self, event_index: int) -> None:
        """Take what came since."""
        self.found += [
            Decision(kind=KINDS[entry.kind], said=_said(entry.kind, json.loads(entry.body)), event_index=event_index, at=entry.at)
            for entry in self._new()
            if entry.kind in KINDS
        ]

    def _new(self) -> list[LedgerEntry]:
        entries: list[LedgerEntry] = []
        with self._house.unit_of_work() as uow:
            while page := uow.ledger.entries(after=self._after):
                entries += page
                self._after = page[-1].seq
        return entries


def _said(kind: str, body: dict[str, Any]) -> str:
    if kind == "alert.opened":
        return ", ".join(body.get("monitors", []))
    if kind == "alert.diagnosed":
        return f"{body['cause']}: {body['action']}"
    return str({"retraining.held": body.get("reason"), "verdict.given": body.get("outcome")}.get(kind) or "")
