"""How the replicas of a home stand, from what they say of themselves: what they hold, when it was proved last, what they refuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from holdfast.cli.show import short
from holdfast.domain.ids import AdapterDigest
from holdfast.domain.routing import ReplicaReport, versions_wanted
from holdfast.ports import UnitOfWork
from holdfast.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLine:
    """One living replica in one line."""

    replica: str
    held_count: int
    """Versions it holds and proved, of those that are wanted."""
    wanted_count: int
    oldest_proof_at: datetime | None
    """The last proof of the version whose last proof is the longest ago."""
    refused: tuple[str, ...]
    """One text per version that it refuses or that failed its proof within the last minute."""
    reported_at: datetime


def replica_lines(unit: UnitOfWork, settings: Settings) -> tuple[ReplicaLine, ...]:
    """Every replica that reported lately."""
    since = datetime.now(UTC) - timedelta(seconds=settings.loop.replica_silence_s)
    wanted = versions_wanted(unit.assignments.all(), unit.assignments.table())
    return tuple(_line(report, wanted) for report in unit.replicas.live(since))


def replica_troubles(lines: Sequence[ReplicaLine], settings: Settings) -> tuple[str, ...]:
    """What is wrong with the replicas of a running home, one sentence each."""
    serving, now = settings.serving, datetime.now(UTC)
    found = []
    if len(lines) < serving.replica_count:
        found.append(f"{len(lines)} of {serving.replica_count} replicas report; see the log of the gateway")
    for line in lines:
        found += [f"replica {line.replica}: {reason}" for reason in line.refused]
        if line.held_count < line.wanted_count and not line.refused:
            found.append(f"replica {line.replica} holds {line.held_count} of {line.wanted_count} versions")
        allowed_s = 2 * serving.prove_s + 2 * serving.refresh_s * line.held_count + 30.0
        if line.oldest_proof_at is not None and (now - line.oldest_proof_at).total_seconds() > allowed_s:
            found.append(f"replica {line.replica} has not proved a version since {line.oldest_proof_at:%H:%M:%S} UTC")
    return tuple(found)


def _line(report: ReplicaReport, wanted: frozenset[AdapterDigest]) -> ReplicaLine:
    failed = {digest: f"refuses {short(digest)}: {reason}" for digest, reason in report.refused.items()}
    lapsed = {digest: f"loaded {short(digest)} anew, it failed its proof: {reason}" for digest, reason in report.lapsed.items()}
    return ReplicaLine(
        replica=report.replica_id,
        held_count=len(wanted & set(report.ready)),
        wanted_count=len(wanted),
        oldest_proof_at=min((at for digest, at in report.proved_at.items() if digest in wanted), default=None),
        refused=tuple((lapsed | failed).values()),
        reported_at=report.reported_at,
    )
