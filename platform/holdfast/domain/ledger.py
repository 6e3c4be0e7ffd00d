"""The ledger: every decision with the inputs it was made from, each row chained to the one before by its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from holdfast.domain.records import canonical
from holdfast.errors import LedgerBroken

GENESIS = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One decision. ``hash`` covers every other field, ``previous_hash`` included."""

    seq: int
    at: datetime
    kind: str
    """What was decided, such as `alert.opened` or `promotion.committed`."""
    task: str
    actor: str
    body: str
    """Canonical JSON of the decision and of the digests of its inputs."""
    previous_hash: str
    hash: str


def chain(previous: LedgerEntry | None, *, at: datetime, kind: str, task: str, actor: str, body: Mapping[str, object]) -> LedgerEntry:
    """The entry that follows ``previous`` (None at the start).

    >>> from datetime import datetime, UTC
    >>> first = chain(None, at=datetime(2026, 1, 1, tzinfo=UTC), kind="x", task="t", actor="me", body={"n": 1})
    >>> first.seq, first.previous_hash == GENESIS
    (1, True)
    """
    seq = 1 if previous is None else previous.seq + 1
    previous_hash = GENESIS if previous is None else previous.hash
    text = canonical(body).decode()
    return LedgerEntry(
        seq=seq, at=at, kind=kind, task=task, actor=actor, body=text, previous_hash=previous_hash,
        hash=_hash(seq, at.isoformat(), kind, task, actor, text, previous_hash),
    )  # fmt: skip


def verify(entries: Iterable[LedgerEntry]) -> int:
    """The number of entries of a whole chain, in order of ``seq``.

    Raises:
        LedgerBroken: at the first row that was edited, removed, inserted or moved.
    """
    previous_hash, seq = GENESIS, 0
    for entry in entries:
        seq += 1
        if entry.seq != seq:
            raise LedgerBroken(seq=seq, reason=f"row {seq} is missing; row {entry.seq} stands in its place")
        if entry.previous_hash != previous_hash:
            raise LedgerBroken(seq=seq, reason="it does not follow the row before it")
        expected = _hash(entry.seq, entry.at.isoformat(), entry.kind, entry.task, entry.actor, entry.body, entry.previous_hash)
        if entry.hash != expected:
            raise LedgerBroken(seq=seq, reason="its content was changed after it was written")
        previous_hash = entry.hash
    return seq


def _hash(*covered: object) -> str:
    text = json.dumps(covered, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
