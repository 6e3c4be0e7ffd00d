"""The routing table and the valid keys, in memory, asked for again every so often by a thread of its own."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.domain.routing import Route, RoutingTable
from holdfast.ports import UnitOfWork

log = logging.getLogger("holdfast.serving")


@dataclass(frozen=True, slots=True)
class Known:
    """What the data plane follows: swapped as a whole, so that a request sees one state of the world."""

    table: RoutingTable = field(default_factory=RoutingTable)
    keys: frozenset[str] = frozenset()
    """SHA-256 of every valid key."""


class RoutingFeed:
    """Follows the published table. A dead database changes nothing: the last table stays in force."""

    def __init__(self, unit_of_work: Callable[[], UnitOfWork], *, refresh_s: float) -> None:
        self._unit_of_work = unit_of_work
        self._refresh_s = refresh_s
        self._known = Known()
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
    def generation(self) -> int:
        """Of the table in force."""
        return self._known.table.generation

    def route(self, task: str) -> Route | None:
        """The route of a task in the table in force."""
        return self._known.table.routes.get(task)

    def admits(self, key: str) -> bool:
        """Whether this API key is valid. The set is of hashes of 256 random bits, so a look-up tells no one anything."""
        return hashlib.sha256(key.encode()).hexdigest() in self._known.keys

    def look(self) -> None:
        """Ask once. Never raises."""
        try:
            with self._unit_of_work() as work:
                table, keys = work.assignments.table(), frozenset(work.keys.valid())
        except Exception as error:  # whatever the database raises: answering goes on with what is known
            if self.failing is None:
                log.warning("the routing table cannot be read; generation %d stays in force: %s", self.generation, error)
            self.failing = f"{type(error).__name__}: {error}"[:300]
            return
        if self.failing is not None and self.generation:
            log.info("the routing table is read again, generation %d", table.generation)
        self.failing = None
        self._known = Known(newest(self._known.table, table), keys)

    def _follow(self) -> None:
        while not self._stop.wait(self._refresh_s):
            self.look()


def newest(held: RoutingTable, read: RoutingTable) -> RoutingTable:
    """The table to follow: per task the route of the higher generation, so that an answer never goes back to an older one."""
    if read.generation == held.generation and read.routes.keys() == held.routes.keys():
        return held
    routes = dict(read.routes)
    for task, route in held.routes.items():
        if task in routes and routes[task].generation < route.generation:
            routes[task] = route
    return RoutingTable(generation=max(held.generation, read.generation), routes=routes)
