"""Where the weights of each registered adapter are: in a bank, in host memory, or on disk alone.

An answer claims its adapters for as long as it needs them; a claimed adapter never leaves its bank, and a pinned one leaves only for
one that is asked and has no room though all others left. What a claim finds outside a bank is brought in by a thread of its own, while
the rows that can be answered are answered. Nobody who waits holds a slot that could be given up: a claimed adapter in a bank is
answered next, and nobody claims anew while that thread waits for room, so every wait ends. What comes back into a bank, from host
memory or from disk, has the bytes that were proved when it was registered.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from holdfast.backends.lora.banks import Banks
from holdfast.backends.lora.entries import Entry
from holdfast.backends.lora.layouts import LoadedAdapter
from holdfast.domain.ids import AdapterDigest
from holdfast.errors import AdapterRefused, HoldfastError, NotFound
from holdfast.ports import Tier

_log = logging.getLogger(__name__)


class Residency:
    """Adapters in three tiers. Every method may be called from any thread.

    Args:
        read: the row of an adapter folder, verified against the digests in its manifest. Raises AdapterRefused.
        bank_bytes: what the banks may hold in all.
        host_bytes: what is kept of evicted rows, so that they need not be read again; the least recently used go first.
    """

    def __init__(self, read: Callable[[Path], Tensor], *, bank_bytes: int, host_bytes: int) -> None:
        self._read = read
        self._banks = Banks(bank_bytes)
        self._host_bytes = host_bytes
        self._entries: dict[AdapterDigest, Entry] = {}
        self._pinned: frozenset[AdapterDigest] = frozenset()
        self._seated: OrderedDict[Entry, None] = OrderedDict()
        self._hosted: OrderedDict[Entry, None] = OrderedDict()
        self._changed = threading.Condition()
        self._short = False
        """Whether the loader waits for room."""
        self._wanted: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._loader: threading.Thread | None = None

    def register(self, adapter: LoadedAdapter, folder: Path) -> Entry:
        """Make a proved adapter answerable, in the place of one of the same digest. Raises AdapterRefused.

        It goes into a bank if one has or can make room now without the pinned, else into host memory.
        """
        row_digest = adapter.layout.digest(adapter.row)
        entry = Entry(adapter.digest, adapter.manifest, adapter.base, adapter.layout, folder, row_digest)
        with self._changed:
            if entry.byte_count > self._banks.budget_bytes:
                raise AdapterRefused(folder=folder, reason="the banks have no room for it, even alone")
            before = self._entries.get(adapter.digest)
            if before is not None:
                self._leave(before)
            self._entries[adapter.digest] = entry
            if self._make_room(entry, asked=False):
                self._seat(entry, adapter.row)
            else:
                self._keep_in_host(entry, adapter.row)
            return entry

    def forget(self, digest: AdapterDigest) -> None:
        """Unload; whoever has claimed it goes on with it."""
        with self._changed:
            entry = self._entries.pop(digest, None)
            if entry is not None:
                self._leave(entry)

    def registered(self) -> frozenset[AdapterDigest]:
        """Digests of what can be asked."""
        with self._changed:
            return frozenset(self._entries)

    def entries(self, digests: Collection[AdapterDigest]) -> list[tuple[Entry, bool]]:
        """Of those that are registered, and whether the seat of each was written to since it was proved."""
        with self._changed:
            return [(entry, entry.written) for digest in digests if (entry := self._entries.get(digest)) is not None]

    def tiers(self) -> Mapping[AdapterDigest, Tier]:
        """Where each registered adapter is now."""
        with self._changed:
            return {d: "bank" if e.seat else "host" if e.host is not None else "disk" for d, e in self._entries.items()}

    def pin(self, digests: AbstractSet[AdapterDigest]) -> None:
        """These, registered or not yet, leave bank and host memory after all others, and no longer those that were pinned before.

        They are brought in unasked where they and one more have room. Where they have not, they leave like others, for one another.
        """
        with self._changed:
            self._pinned = frozenset(digests)
            mine = [entry for digest, entry in self._entries.items() if digest in self._pinned]
            others = (entry.byte_count for digest, entry in self._entries.items() if digest not in self._pinned)
            if _bytes(mine) + max(others, default=0) <= self._banks.budget_bytes:
                for entry in mine:
                    self._ask(entry)
            self._changed.notify_all()

    @contextmanager
    def claim(self, digests: Collection[AdapterDigest]) -> Iterator[Iterator[Mapping[AdapterDigest, LoadedAdapter]]]:
        """Claim adapters, and go through them as they are in a bank: mappings that together name each digest once.

        Between two steps an adapter of the step before is no longer claimed. Raises NotFound, at once for what is not registered,
        at its step for what can no longer be read.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._short)
            waiting = {digest: self._entry(digest) for digest in digests}
            for entry in waiting.values():
                entry.claims += 1
                self._ask(entry)
        try:
            yield self._steps(waiting)
        finally:
            self._release(waiting)

    @contextmanager
    def held(self, digest: AdapterDigest) -> Iterator[tuple[Entry, LoadedAdapter]]:
        """An adapter to be proved, where it is: nothing is brought in for it. It counts as proved unless the block raises.

        Raises NotFound.
        """
        with self._changed:
            entry = self._entry(digest)
            entry.claims += 1
            seat, stamp = entry.seat, entry.seat.stamp if entry.seat else ()
        try:
            row = seat.row if seat is not None else self._row(entry)
            if row is None:
                raise NotFound(kind="adapter", name=digest)
            yield entry, entry.on(row)
            with self._changed:
                entry.stamp = stamp if seat is not None else entry.stamp
        finally:
            self._release({digest: entry}, used=False)

    def close(self) -> None:
        """End the loader."""
        with self._changed:
            loader, self._loader = self._loader, None
        if loader is not None:
            self._wanted.put(None)
            loader.join()

    def _steps(self, waiting: dict[AdapterDigest, Entry]) -> Iterator[Mapping[AdapterDigest, LoadedAdapter]]:
        while waiting:
            with self._changed:
                self._changed.wait_for(lambda: any(e.seat or e.failed for e in waiting.values()))
                here = {digest: entry.loaded for digest, entry in waiting.items() if entry.seat}
            if not here:
                raise NotFound(kind="adapter", name=next(digest for digest, entry in waiting.items() if entry.failed))
            yield here
            self._release({digest: waiting.pop(digest) for digest in here})

    def _release(self, entries: Mapping[AdapterDigest, Entry], *, used: bool = True) -> None:
        with self._changed:
            for entry in entries.values():
                entry.claims -= 1
                if used and entry in self._seated:
                    self._seated.move_to_end(entry)
                if entry.gone:
                    self._end(entry)
            self._changed.notify_all()

    def _entry(self, digest: AdapterDigest) -> Entry:
        if digest not in self._entries:
            raise NotFound(kind="adapter", name=digest)
        return self._entries[digest]

    def _ask(self, entry: Entry) -> None:
        """Have the loader bring it in, unless it is there or on its way."""
        if entry.seat is not None or entry.asked or entry.failed:
            return
        entry.asked = True
        self._wanted.put(entry)
        if self._loader is None:
            self._loader = threading.Thread(target=self._bring, name="adapter-loader", daemon=True)
            self._loader.start()

    def _bring(self) -> None:
        while (entry := self._wanted.get()) is not None:
            row = self._row(entry)
            with self._changed:
                if row is not None:
                    self._short = True
                    self._changed.wait_for(lambda: self._idle(entry) or self._make_room(entry, asked=True))
                    self._short = False
                    if not self._idle(entry):
                        self._seat(entry, row)
                entry.asked = False
                self._changed.notify_all()

    def _row(self, entry: Entry) -> Tensor | None:
        """Its row as it was proved, from host memory or from disk; None when there is none, and then it is registered no more."""
        row = entry.host
        if row is not None:
            if entry.layout.digest(row) == entry.row_digest:
                return row
            _log.warning("%s changed in memory; it is read again", entry.digest)
        try:
            row = self._read(entry.folder)
            if entry.layout.digest(row) != entry.row_digest:
                raise AdapterRefused(folder=entry.folder, reason="its files are not those that were proved")
            return row
        except (HoldfastError, OSError) as error:
            _log.warning("%s cannot be read again: %s", entry.digest, error)
            with self._changed:
                entry.failed = True
                if self._entries.get(entry.digest) is entry:
                    del self._entries[entry.digest]
            return None

    @staticmethod
    def _idle(entry: Entry) -> bool:
        """Whether nobody needs it any more."""
        return entry.gone and not entry.claims

    def _make_room(self, entry: Entry, *, asked: bool) -> bool:
        """Evict the least recently used until its row fits; false, and nothing evicted, where that is not enough now.

        The pinned are evicted only for one that is asked, and only where all others, the claimed too, would leave it no room.
        """
        if self._banks.fits(entry.layout):
            return True
        short = entry.byte_count + self._banks.used_bytes - self._banks.budget_bytes
        others = [one for one in self._seated if one.digest not in self._pinned]
        givers = [one for one in others if not one.claims]
        if asked and _bytes(others) < short:
            givers += [one for one in self._seated if one.digest in self._pinned and not one.claims]
        if _bytes(givers) < short:
            return False
        for one in givers:
            if self._banks.fits(entry.layout):
                break
            self._evict(one)
        return True

    def _seat(self, entry: Entry, row: Tensor) -> None:
        self._drop_from_host(entry)
        entry.seat = self._banks.seat(entry.layout, row)
        entry.stamp = entry.seat.stamp
        self._seated[entry] = None

    def _evict(self, entry: Entry) -> None:
        assert entry.seat is not None, "only who sits can be evicted"
        self._keep_in_host(entry, entry.seat.row.clone())
        self._stand_up(entry)

    def _stand_up(self, entry: Entry) -> None:
        if entry.seat is not None:
            self._banks.leave(entry.seat)
            entry.seat = None
            del self._seated[entry]

    def _keep_in_host(self, entry: Entry, row: Tensor) -> None:
        if entry.byte_count > self._host_bytes:
            return
        entry.host = row
        self._hosted[entry] = None
        while _bytes(self._hosted) > self._host_bytes:
            others = (one for one in self._hosted if one.digest not in self._pinned)
            self._drop_from_host(next(others, next(iter(self._hosted))))

    def _drop_from_host(self, entry: Entry) -> None:
        entry.host = None
        self._hosted.pop(entry, None)

    def _leave(self, entry: Entry) -> None:
        entry.gone = True
        self._end(entry)
        self._changed.notify_all()

    def _end(self, entry: Entry) -> None:
        """Free what a forgotten adapter holds, unless somebody still needs it."""
        if not entry.claims:
            self._stand_up(entry)
            self._drop_from_host(entry)


def _bytes(entries: Iterable[Entry]) -> int:
    return sum(entry.byte_count for entry in entries)
