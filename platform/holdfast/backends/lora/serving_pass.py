"""One pass of answering: rows of many adapters through one base, tokens packed without padding, LoRA per segment of one adapter.

The base's linear layers (`linears`) see all tokens at once; what lies between them is done by the machine's own code (`native`) or
by torch. Training runs the same layers by `encoder`, where gradients flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from holdfast.backends.lora.base_model import BaseModel
from holdfast.backends.lora.decoding import Output, outputs_of
from holdfast.backends.lora.encoder import Packing, attend, pool
from holdfast.backends.lora.layouts import LoadedAdapter, Place
from holdfast.backends.lora.linears import Linears
from holdfast.backends.lora.native import Ints, Kernel

PASS_TOKENS = 512
"""Tokens of one pass, about. More are no faster; half as many cost 3%, a fourth 10% (results/engine.md)."""
MIN_PASS_TOKENS = 64
"""Tokens below which a pass is not cut apart to run on two cores."""
GATHER_FROM = 8
"""Segments of one form from which on torch multiplies copies of their matrices in one call; below, one call each is faster."""


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Tokens ``start .. stop`` of a pass belong to this adapter, which carries LoRA."""

    start: int
    stop: int
    adapter: LoadedAdapter


class Rows:
    """Where the rows of a pass lie: row i is tokens ``ends[i] .. ends[i + 1]``."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = list(lengths)
        self.ends: Ints = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @cached_property
    def packing(self) -> Packing:
        """The same for torch's attention, which needs padding."""
        return Packing.of(self.lengths)

    @cached_property
    def positions(self) -> Tensor:
        """[T]: position of each token in its row."""
        return torch.from_numpy(np.arange(self.ends[-1]) - np.repeat(self.ends[:-1], self.lengths))


class Steps(Protocol):
    """What a pass does between two linear layers."""

    pads: bool
    """Whether rows of unlike length cost more together."""

    def attend(self, qkv: Tensor, rows: Rows, heads: int) -> Tensor: ...
    def add_norm(self, a: Tensor, b: Tensor, norm: tuple[Tensor, Tensor], epsilon: float) -> Tensor: ...
    def mean(self, x: Tensor, rows: Rows) -> Tensor: ...
    def add_lora(self, place: Place, x: Tensor, y: Tensor, segments: Sequence[Segment]) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """How a base is run on this machine."""

    name: str
    linears: Linears
    steps: Steps


class TorchSteps:
    """By torch alone."""

    pads = True

    def attend(self, qkv: Tensor, rows: Rows, heads: int) -> Tensor:
        """[T, 3 hidden] -> [T, hidden]."""
        return attend(qkv, rows.packing, heads)

    def add_norm(self, a: Tensor, b: Tensor, norm: tuple[Tensor, Tensor], epsilon: float) -> Tensor:
        """[T, hidden]."""
        return F.layer_norm(a + b, (a.shape[1],), norm[0], norm[1], epsilon)

    def mean(self, x: Tensor, rows: Rows) -> Tensor:
        """[T, hidden] -> [rows, hidden]."""
        return pool(x, rows.packing)

    def add_lora(self, place: Place, x: Tensor, y: Tensor, segments: Sequence[Segment]) -> None:
        """In place on y: by segments for few adapters, by gathered copies for many of one form."""
        here = [one for one in segments if place in one.adapter.layout.offsets]
        if len(here) >= GATHER_FROM and len({one.adapter.layout for one in here}) == 1:
            _gathered(place, x, y, here)
            return
        for one in here:
            down, up = one.adapter.layout.pair(one.adapter.row, place)
            k, rank, _ = up.shape
            narrow = (x[one.start : one.stop] @ down).view(-1, k, rank)  # [t, inputs] -> [t, k, rank]
            part = y[one.start : one.stop].view(len(narrow), k, -1)
            part.transpose(0, 1).baddbmm_(narrow.transpose(0, 1), up)  # k times [t, rank] x [rank, outputs]


class NativeSteps:
    """By the machine's own code."""

    pads = False

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def attend(self, qkv: Tensor, rows: Rows, heads: int) -> Tensor:
        """[T, 3 hidden] -> [T, hidden]."""
        return self._kernel.attend(qkv, rows.ends, heads)

    def add_norm(self, a: Tensor, b: Tensor, norm: tuple[Tensor, Tensor], epsilon: float) -> Tensor:
        """[T, hidden]."""
        return self._kernel.add_norm(a, b, norm, epsilon)

    def mean(self, x: Tensor, rows: Rows) -> Tensor:
        """[T, hidden] -> [rows, hidden]."""
        return self._kernel.mean(x, rows.ends)

    def add_lora(self, place: Place, x: Tensor, y: Tensor, segments: Sequence[Segment]) -> None:
        """In place on y."""
        here = [one for one in segments if place in one.adapter.layout.offsets]
        if not here:
            return
        table = np.array([(one.start, one.stop, one.adapter.layout.rank) for one in here], np.int64)
        offsets = np.array([one.adapter.layout.offsets[place] for one in here], np.int64)  # [n, 2], in floats
        at = np.array([one.adapter.row.data_ptr() for one in here], np.int64)[:, None] + 4 * offsets
        parts = here[0].adapter.layout.sides(place[1])[2]
        self._kernel.add_lora(x, y, table, (np.ascontiguousarray(at[:, 0]), np.ascontiguousarray(at[:, 1])), parts)


def cut(way: Way, rows: Sequence[int], adapters: Sequence[LoadedAdapter], ids: Sequence[Sequence[int]], lanes: int) -> list[list[int]]:
    """Rows in passes of about PASS_TOKENS tokens, and in one per lane where there are enough; each pass sorted by adapter.

    Where unlike lengths cost more, rows of like length come together; else all rows of an adapter do.
    """
    first = {id(adapters[i]): at for at, i in reversed(list(enumerate(rows)))}
    order = sorted(rows, key=lambda i: -len(ids[i]) if way.steps.pads else first[id(adapters[i])])
    total = sum(len(ids[i]) for i in rows)
    most = max(MIN_PASS_TOKENS, min(PASS_TOKENS, -(-total // lanes)))
    passes: list[list[int]] = []
    room = 0
    for i in order:
        if not passes or len(ids[i]) > room:
            passes.append([])
            room = max(most, len(ids[i]))
        passes[-1].append(i)
        room -= len(ids[i])
    return [sorted(one, key=lambda i: first[id(adapters[i])]) for one in passes]


def run_pass(base: BaseModel, way: Way, adapters: Sequence[LoadedAdapter], ids: Sequence[Sequence[int]], merged: bool) -> list[Output]:
    """Outputs of rows that are sorted by adapter; ``merged`` where the linear layers of the way hold the LoRA of all of them."""
    rows = Rows([len(one) for one in ids])
    groups = list(_groups(adapters))
    ends = rows.ends.tolist()
    segments = [] if merged else [Segment(ends[a], ends[b], adapters[a]) for a, b in groups if adapters[a].layout.places]
    with torch.inference_mode():
        last = encode(base, way, ids, rows, segments)  # [T, hidden]
        pooled = way.steps.mean(last, rows)  # [T, hidden] -> [rows, hidden]
        states = torch.split(last, rows.lengths)
        return [one for a, b in groups for one in _heads(adapters[a], states[a:b], pooled[a:b])]


def encode(base: BaseModel, way: Way, ids: Sequence[Sequence[int]], rows: Rows, segments: Sequence[Segment] = ()) -> Tensor:
    """Last hidden states: [T, hidden]."""
    steps, linears, epsilon = way.steps, way.linears, base.norm_epsilon
    tokens = torch.tensor([one for row in ids for one in row])
    x = steps.add_norm(base.words[tokens], base.positions[rows.positions], base.first_norm, epsilon)
    for layer, weights in enumerate(base.layers):
        qkv = _linear(way, (layer, "qkv"), x, segments)  # [T, h] -> [T, 3h]
        mixed = steps.attend(qkv, rows, base.head_count)  # [T, 3h] -> [T, h]
        x = steps.add_norm(_linear(way, (layer, "out"), mixed, segments), x, weights.norm, epsilon)
        if any((layer, "up") in one.adapter.layout.offsets for one in segments):
            wide = F.gelu(_linear(way, (layer, "up"), x, segments))  # [T, h] -> [T, m]
        else:
            wide = linears.apply_gelu((layer, "up"), x)
        x = steps.add_norm(_linear(way, (layer, "down"), wide, segments), x, weights.last_norm, epsilon)  # [T, m] -> [T, h]
    return x


def _linear(way: Way, place: Place, x: Tensor, segments: Sequence[Segment]) -> Tensor:
    y = way.linears.apply(place, x)
    if segments:
        way.steps.add_lora(place, x, y, segments)
    return y


def _gathered(place: Place, x: Tensor, y: Tensor, segments: Sequence[Segment]) -> None:
    """All segments in one batched product, on copies of their matrices and on tokens padded to the longest segment."""
    pairs = [one.adapter.layout.pair(one.adapter.row, place) for one in segments]
    downs, ups = torch.stack([down for down, _ in pairs]), torch.stack([up for _, up in pairs])  # [n, in, k r], [n, k, r, out]
    lengths = np.array([one.stop - one.start for one in segments])
    longest, (n, k, rank, out) = int(lengths.max()), ups.shape
    inside = np.arange(longest) < lengths[:, None]
    place_of = torch.from_numpy(np.flatnonzero(inside))  # in the padded form
    token_of = torch.from_numpy((np.array([one.start for one in segments])[:, None] + np.arange(longest))[inside])
    padded = x.new_zeros(n * longest, x.shape[1]).index_copy_(0, place_of, x.index_select(0, token_of))
    narrow = (padded.view(n, longest, -1) @ downs).view(n, longest, k, rank).transpose(1, 2)  # [n, k, longest, rank]
    wide = (narrow @ ups).transpose(1, 2).reshape(n * longest, k * out)
    y.index_add_(0, token_of, wide.index_select(0, place_of))


def _heads(adapter: LoadedAdapter, states: Sequence[Tensor], pooled: Tensor) -> list[Output]:
    return outputs_of(adapter.manifest, adapter.layout.head(adapter.row), states, pooled)


def _groups(adapters: Sequence[LoadedAdapter]) -> Iterator[tuple[int, int]]:
    """Start and stop of each run of rows of the same adapter."""
    starts = [i for i in range(len(adapters)) if i == 0 or adapters[i] is not adapters[i - 1]]
    return zip(starts, [*starts[1:], len(adapters)], strict=True)
