"""Who answers: assignments, the routing table, and the choice of a version for one request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from holdfast.domain.ids import AdapterDigest, TaskName

RouteName = Literal["champion", "canary", "shadow", "pinned"]
"""`pinned`: the caller named the version; `shadow`: a copy whose answer nobody got."""
COUNTED_ROUTES: frozenset[RouteName] = frozenset({"champion", "canary"})
"""Answers that speak for a version's quality: whose traffic was drawn by chance. Who names a version chooses its inputs too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Who is champion of a task: the intent, and the one truth. The routing table follows it once the version is warm."""

    task: TaskName
    champion: AdapterDigest
    previous: AdapterDigest | None
    challenger: AdapterDigest | None = None
    share_canary: float = 0.0
    shadow: bool = False
    """Whether the challenger gets copies of what the champion answers."""
    generation: int
    """Grows with every change of any assignment; never given twice."""
    changed_at: datetime
    stuck_reason: str | None = None
    """Why the routing table does not follow yet, when a replica refuses the version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What the data plane needs to answer one task."""

    task: TaskName
    champion: AdapterDigest
    challenger: AdapterDigest | None = None
    share_canary: float = 0.0
    shadow: bool = False
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTable:
    """Snapshot of all routes; ``generation`` is the highest of them."""

    generation: int = 0
    routes: Mapping[str, Route] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The version that answers one request, and the one that gets a copy."""

    digest: AdapterDigest
    route: RouteName
    generation: int
    shadow: AdapterDigest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """What one replica says of itself: which versions it holds and proved, which it could not load."""

    replica_id: str
    ready: tuple[AdapterDigest, ...]
    refused: Mapping[str, str]
    """Digest to reason."""
    lapsed: Mapping[str, str] = field(default_factory=dict)
    """Digest to reason, of versions whose proof failed a short while ago; where one is ready, it was loaded anew and proved."""
    proved_at: Mapping[str, datetime] = field(default_factory=dict)
    """Digest to the time of the last proof, of what is ready."""
    generation: int
    reported_at: datetime


def choose(route: Route, key: str) -> Choice:
    """The version for one request: champion, or canary by a stable hash of ``key``. A replayed key takes the same way.

    The key is the request id, or what the caller names in its place so that all requests of one session take the same way.

    >>> from holdfast.domain.ids import AdapterDigest, TaskName
    >>> route = Route(task=TaskName("t"), champion=AdapterDigest("a"), generation=1)
    >>> choose(route, "r1").route
    'champion'
    """
    if route.challenger is not None and share_of(route.task, key) < route.share_canary:
        return Choice(digest=route.challenger, route="canary", generation=route.generation)
    shadow = route.challenger if route.shadow else None
    return Choice(digest=route.champion, route="champion", generation=route.generation, shadow=shadow)


def share_of(task: str, key: str) -> float:
    """A number in 0..1 that depends on nothing but its arguments, uniform over keys."""
    raw = hashlib.blake2b(f"{task}\x1f{key}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") / 2**64


def route_of(assignment: Assignment) -> Route:
    """The route that an assignment asks for."""
    return Route(
        task=assignment.task,
        champion=assignment.champion,
        challenger=assignment.challenger,
        share_canary=assignment.share_canary,
        shadow=assignment.shadow,
        generation=assignment.generation,
    )


def versions_wanted(assignments: Mapping[str, Assignment], table: RoutingTable) -> frozenset[AdapterDigest]:
    """Every version a replica should hold: champions, challengers, the previous champions, so that rollback is instant, and what the
    table names, which may be older than all of them while newer versions are refused."""
    wanted: set[AdapterDigest | None] = set()
    for a in assignments.values():
        wanted.update((a.champion, a.previous, a.challenger))
    for route in table.routes.values():
        wanted.update((route.champion, route.challenger))
    return frozenset(d for d in wanted if d is not None)


def versions_routed(assignments: Mapping[str, Assignment], table: RoutingTable) -> frozenset[AdapterDigest]:
    """Every version that gets a task's own traffic: what the table names, and the champions that it will name once they are warm."""
    routed: set[AdapterDigest | None] = {a.champion for a in assignments.values()}
    for route in table.routes.values():
        routed.update((route.champion, route.challenger))
    return frozenset(d for d in routed if d is not None)
