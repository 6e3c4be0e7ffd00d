"""What a caller may name as the model, on every door of the data plane, and what that name means.

    tickets                 the task, by its routing: champion, or canary for its share
    tickets@champion        the champion, whatever the canary's share
    tickets@challenger      the challenger, whatever its share
    tickets@17              version 17 of the task, and no other
    minilm:tickets@17       the same, if that version stands on the base `minilm`
    minilm:sha256:4f…       the adapter of that digest, if it stands on that base
    minilm                  the base itself, without an adapter (embeddings only)

A name never means something near to it: what is not served is refused, and never answered by the champion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.ids import AdapterDigest, bare, base_asked
from holdfast.domain.routing import Choice, Route, RoutingTable, choose
from holdfast.domain.tasks import TaskContract
from holdfast.errors import NotFound, VersionNotHeld

_DIGEST = "sha256:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What exists, as the data plane knows it."""

    contracts: Mapping[str, TaskContract] = field(default_factory=dict)
    versions: Mapping[AdapterDigest, AdapterVersion] = field(default_factory=dict)
    numbers: Mapping[tuple[str, int], AdapterDigest] = field(default_factory=dict)
    """Task and version number to digest."""
    held: frozenset[AdapterDigest] = frozenset()
    """What some living replica holds and has proved."""
    bases: Mapping[str, str] = field(default_factory=dict)
    """Base name to the digest of its weights."""

    def base_digest(self, digest: AdapterDigest) -> str | None:
        """The digest of the base that a version stands on, or that is asked itself; None when nothing is known of the version."""
        if (base := base_asked(digest)) is not None:
            return self.bases.get(base)
        version = self.versions.get(digest)
        return version.lineage.base_digest if version else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a name means at one moment: a task by its routing, one version of it, or a base."""

    name: str
    task: str | None
    """None for a base."""
    route: Route | None = None
    """Followed when nothing is pinned."""
    pinned: Choice | None = None

    def choice(self, key: str) -> Choice:
        """Who answers; ``key`` is what the canary's share is drawn from."""
        if self.pinned is not None:
            return self.pinned
        assert self.route is not None, "a target is pinned or has a route"
        return choose(self.route, key)


def resolve(name: str, table: RoutingTable, catalogue: Catalogue) -> Target:
    """What ``name`` means.

    Raises:
        NotFound: no such task, version, challenger or base.
        VersionNotHeld: the version exists, but no replica holds it.
    """
    base, _, adapter = name.partition(":")
    if not adapter:
        return _of_task(name, table, catalogue)
    if base not in catalogue.bases:
        raise NotFound(kind="base", name=base[:80])
    target = _of_digest(name, adapter, table, catalogue) if adapter.startswith(_DIGEST) else _of_task(adapter, table, catalogue)
    digests = [target.pinned.digest] if target.pinned else [target.route.champion] if target.route else []
    if any((version := catalogue.versions.get(digest)) is None or version.base != base for digest in digests) or target.task is None:
        raise NotFound(kind=f"adapter on base {base}", name=adapter[:80])
    return target


def _of_task(name: str, table: RoutingTable, catalogue: Catalogue) -> Target:
    task, _, picked = name.partition("@")
    route = table.routes.get(task)
    if route is None:
        if not picked and name in catalogue.bases:
            choice = Choice(digest=bare(name), route="pinned", generation=table.generation)
            return Target(name=name, task=None, pinned=choice)
        raise NotFound(kind="served task", name=task[:80])
    if not picked and "@" not in name:
        return Target(name=name, task=task, route=route)
    if picked == "champion":
        return _pinned(name, route, route.champion, "champion")
    if picked == "challenger" and route.challenger is not None:
        return _pinned(name, route, route.challenger, "pinned")
    digest = catalogue.numbers.get((task, int(picked))) if picked.isascii() and picked.isdecimal() and len(picked) < 10 else None
    if digest is None:
        raise NotFound(kind=f"version of task {task}", name=picked[:80])
    return _held(name, route, digest, catalogue)


def _of_digest(name: str, adapter: str, table: RoutingTable, catalogue: Catalogue) -> Target:
    version = catalogue.versions.get(AdapterDigest(adapter))
    route = table.routes.get(version.task) if version else None
    if version is None or route is None:
        raise NotFound(kind="served adapter", name=adapter[:80])
    return _held(name, route, version.digest, catalogue)


def _held(name: str, route: Route, digest: AdapterDigest, catalogue: Catalogue) -> Target:
    if digest not in catalogue.held and digest not in (route.champion, route.challenger):
        raise VersionNotHeld(name=name[:160], digest=digest)
    return _pinned(name, route, digest, "pinned")


def _pinned(name: str, route: Route, digest: AdapterDigest, way: str) -> Target:
    # the champion named as such answers a caller who would have got it anyway; every other named version is the caller's own choice
    choice = Choice(digest=digest, route="champion" if way == "champion" else "pinned", generation=route.generation)
    return Target(name=name, task=route.task, route=route, pinned=choice)
