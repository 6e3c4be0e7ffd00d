"""The adapter that most of the traffic asks for: its LoRA is multiplied into a copy of the base, and costs nothing from then on.

Merging when one adapter dominates, and going back when it does not, is dLoRA's idea (Wu et al., OSDI 2024).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from holdfast.backends.lora.fingerprint import stamp
from holdfast.backends.lora.layouts import Layout, LoadedAdapter, Place
from holdfast.backends.lora.linears import EagerLinears, MergedLinears, PackedLinears, all_weights
from holdfast.backends.lora.serving_pass import Way
from holdfast.domain.ids import AdapterDigest

MEMORY_ROWS = 2048
"""Counts are halved when they add up to so much: the share is that of about the last thousand rows."""
MIN_ROWS = 512
MERGE_SHARE, KEEP_SHARE = 0.5, 0.3
"""Share of the rows from which an adapter is merged, and down to which it stays so."""


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """One adapter with a base of its own."""

    digest: AdapterDigest
    way: Way
    stamp: tuple[int, ...]
    """Of its weights when they were last proved."""

    @property
    def touched(self) -> bool:
        """Whether its weights were written to since."""
        return self.stamp != stamp(self.way.linears.tensors)


class Favourite:
    """Counts rows per adapter and merges at most one. Any thread may ask; merging is done in a thread of its own.

    Args:
        proved: whether an adapter answers by its own base as it was sealed; one that does not goes on beside the shared base.
    """

    def __init__(self, proved: Callable[[LoadedAdapter, Way], bool]) -> None:
        self._proved = proved
        self._counts: Counter[AdapterDigest] = Counter()
        self._merged: Merged | None = None
        self._work: threading.Thread | None = None
        self._lock = threading.Lock()

    def merged(self, adapters: Sequence[LoadedAdapter], way: Way) -> Merged | None:
        """Count these rows, and say which of their adapters has a base of its own."""
        with self._lock:
            self._counts.update(adapter.digest for adapter in adapters)
            if self._counts.total() > MEMORY_ROWS:
                self._counts = Counter({digest: count // 2 for digest, count in self._counts.items() if count > 1})
            self._decide({adapter.digest: adapter for adapter in adapters}, way, self._counts.total())
            merged = self._merged
        return merged if merged is not None and any(adapter.digest == merged.digest for adapter in adapters) else None

    def of(self, digest: AdapterDigest) -> Merged | None:
        """The base of its own that an adapter has now."""
        merged = self._merged
        return merged if merged is not None and merged.digest == digest else None

    def forget(self, digest: AdapterDigest) -> None:
        """Drop the base of its own that an adapter may have."""
        with self._lock:
            if self._merged is not None and self._merged.digest == digest:
                self._merged = None

    def settle(self) -> None:
        """Wait for a merging that is under way."""
        work = self._work
        if work is not None:
            work.join()

    def _decide(self, here: Mapping[AdapterDigest, LoadedAdapter], way: Way, total: int) -> None:
        if total < MIN_ROWS:
            return
        if self._merged is not None and self._counts[self._merged.digest] < KEEP_SHARE * total:
            self._merged = None
        digest, count = self._counts.most_common(1)[0]
        taken = self._merged is not None and self._merged.digest == digest
        busy = self._work is not None and self._work.is_alive()
        if taken or busy or count < MERGE_SHARE * total or digest not in here or not here[digest].layout.places:
            return
        adapter = here[digest]
        own = replace(adapter, row=adapter.row.clone())  # the slot may be another's before the merging ends
        self._work = threading.Thread(target=self._merge, args=(own, way), name="merge", daemon=True)
        self._work.start()

    def _merge(self, adapter: LoadedAdapter, way: Way) -> None:
        own = merged_way(adapter, adapter.row, way)
        made = Merged(adapter.digest, own, stamp(own.linears.tensors))
        fine = self._proved(adapter, own)
        with self._lock:
            if fine:
                self._merged = made
            else:
                self._counts.clear()  # not again at once


def merged_way(adapter: LoadedAdapter, row: Tensor, way: Way) -> Way:
    """The way of a base with the LoRA of one adapter in its weights."""
    weights = all_weights(adapter.base)
    layout = adapter.layout
    own = {place: (weights[place][0] + update(layout, row, place), weights[place][1]) for place in layout.places}
    linears = PackedLinears(own) if isinstance(way.linears, PackedLinears) else EagerLinears(own)
    return Way(f"{way.name}, merged", MergedLinears(way.linears, linears, frozenset(own)), way.steps)


def update(layout: Layout, row: Tensor, place: Place) -> Tensor:
    """What the LoRA of a place adds to the base's weight: [outputs, inputs]."""
    down, up = layout.pair(row, place)
    narrow = down.view(len(down), len(up), layout.rank)  # [inputs, k, rank]
    with torch.inference_mode():
        return torch.cat([up[k].T @ narrow[:, k].T for k in range(len(up))])  # k times [outputs, rank] x [rank, inputs]
