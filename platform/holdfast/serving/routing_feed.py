"""The routing table, what may be named, and the valid keys: in memory, asked for again every so often by a thread of its own."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from holdfast.domain.model_names import Catalogue, Target, resolve
from holdfast.domain.routing import Route, RoutingTable
from holdfast.ports import Clock, UnitOfWork

log = logging.getLogger("holdfast.serving")
CATALOGUE_S = 5.0
"""Contracts and versions are read again after so long, and at once when a route changes: they are many and change seldom."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the data plane follows: swapped as a whole, so that a request sees one state of the world."""

    table: RoutingTable = field(default_factory=RoutingTable)
    keys: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of every valid key, and its name."""
    catalogue: Catalogue = field(default_factory=Catalogue)


def _now() -> datetime:
    return datetime.now(UTC)


class RoutingFeed:
    """Follows the published table. A dead database changes nothing: what was read last stays in force."""

    def __init__(
        self,
        unit_of_work: Callable[[], UnitOfWork],
        *,
        refresh_s: float,
        bases: Mapping[str, str] | None = None,
        silence_s: float = 15.0,
        clock: Clock = _now,
    ) -> None:
        """``bases``: base name to digest. A replica that reported nothing for ``silence_s`` holds nothing any more."""
        self._unit_of_work = unit_of_work
        self._refresh_s, self._silence_s, self._clock = refresh_s, silence_s, clock
        self._known = Known(catalogue=Catalogue(bases=dict(bases or {})))
        self._catalogue_at = float("-inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="routing-feed", daemon=True)
        self.failing: str | None = "nothing was read yet"
        """Why the last look failed; None when it did not."""

    def start(self) -> None:
        """Look once, then go on looking."""
        self.look()
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    @property
    def known(self) -> Known:
        """All of it, as of one look."""
        return self._known

    @property
    def generation(self) -> int:
        """Of the table in force."""
        return self._known.table.generation

    def route(self, task: str) -> Route | None:
        """The route of a task in the table in force."""
        return self._known.table.routes.get(task)

    def target(self, name: str) -> Target:
        """What a model name means now. Raises NotFound, VersionNotHeld."""
        known = self._known
        return resolve(name, known.table, known.catalogue)

    def caller(self, key: str) -> str | None:
        """The name of a valid API key, else None. The look-up is by a hash of 256 random bits, so its time tells no one anything."""
        return self._known.keys.get(hashlib.sha256(key.encode()).hexdigest())

    def admits(self, key: str) -> bool:
        """Whether this API key is valid."""
        return self.caller(key) is not None

    def look(self) -> None:
        """Ask once. Never raises."""
        try:
            self._known = self._read(self._known)
        except Exception as error:  # whatever the database raises: answering goes on with what is known
            if self.failing is None:
                log.warning("the routing table cannot be read; generation %d stays in force: %s", self.generation, error)
            self.failing = f"{type(error).__name__}: {error}"[:300]
            return
        if self.failing is not None and self.generation:
            log.info("the routing table is read again, generation %d", self.generation)
        self.failing = None

    def _read(self, held: Known) -> Known:
        with self._unit_of_work() as work:
            table, keys = newest(held.table, work.assignments.table()), work.keys.valid()
            catalogue = held.catalogue
            if table is not held.table or time.monotonic() - self._catalogue_at > CATALOGUE_S:
                catalogue = _catalogue(work, catalogue)
                self._catalogue_at = time.monotonic()
            reports = work.replicas.live(self._clock() - timedelta(seconds=self._silence_s))
        on_replicas = frozenset(digest for report in reports for digest in report.ready)
        return Known(table, dict(keys), replace(catalogue, held=on_replicas))

    def _follow(self) -> None:
        while not self._stop.wait(self._refresh_s):
            self.look()


def _catalogue(work: UnitOfWork, held: Catalogue) -> Catalogue:
    versions = work.versions.all()
    return replace(
        held,
        contracts={contract.task: contract for contract in work.contracts.all()},
        versions={version.digest: version for version in versions},
        numbers={(version.task, version.number): version.digest for version in versions},
    )


def newest(held: RoutingTable, read: RoutingTable) -> RoutingTable:
    """The table to follow: per task the route of the higher generation, so that an answer never goes back to an older one."""
    if read.generation == held.generation and read.routes.keys() == held.routes.keys():
        return held
    routes = dict(read.routes)
    for task, route in held.routes.items():
        if task in routes and routes[task].generation < route.generation:
            routes[task] = route
    return RoutingTable(generation=max(held.generation, read.generation), routes=routes)
