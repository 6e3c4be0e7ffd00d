"""An adapter as one row of floats: where its matrices lie in it, and how they get there.

One contiguous row makes registering a copy, evicting a copy back, and memory per adapter its raw bytes up to a page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from holdfast.backends.lora.base_model import BaseModel
from holdfast.backends.lora.head import Head
from holdfast.backends.lora.lora_format import PARTS, LoraWeights, matrix_name
from holdfast.domain.adapters import Manifest
from holdfast.domain.ids import AdapterDigest

Part = Literal["qkv", "out", "up", "down"]
Place = tuple[int, Part]
"""Encoder layer and fused linear layer in it."""
RANKS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Buckets of rank; the ranks people choose are in it, so that nothing is padded for them."""
PAGE_FLOATS = 1024
"""Rows begin at a page of memory (4 KiB), so that an emptied slot can be handed back to the system."""


@dataclass(frozen=True)
class Layout:
    """The form of an adapter; adapters of one form share a bank."""

    rank: int
    """One of RANKS; 0 for an adapter without LoRA."""
    places: tuple[Place, ...]
    """Linear layers that carry LoRA, in order."""
    outputs: int
    """Of the head."""
    hidden: int
    inner: int
    """Width between the two MLP layers."""

    def sides(self, part: Part) -> tuple[int, int, int]:
        """Inputs, outputs of each of its modules, number of modules."""
        return {
            "qkv": (self.hidden, self.hidden, 3),
            "out": (self.hidden, self.hidden, 1),
            "up": (self.hidden, self.inner, 1),
            "down": (self.inner, self.hidden, 1),
        }[part]

    @cached_property
    def offsets(self) -> Mapping[Place, tuple[int, int]]:
        """Place to where its down and its up matrix begin, in floats: [inputs, k rank] and [k, rank, outputs] for k modules."""
        found, at = {}, self.outputs * (self.hidden + 1)
        for place in self.places:
            into, out, count = self.sides(place[1])
            found[place] = (at, at + into * count * self.rank)
            at += (into + out) * count * self.rank
        return found

    @cached_property
    def used(self) -> int:
        """Floats of a row that stand for something; what follows them up to a whole page is never read."""
        used = self.outputs * (self.hidden + 1)
        for _, part in self.places:
            into, out, count = self.sides(part)
            used += (into + out) * count * self.rank
        return used

    @cached_property
    def floats(self) -> int:
        """Length of a row, up to whole pages."""
        return -(-self.used // PAGE_FLOATS) * PAGE_FLOATS

    def digest(self, row: Tensor) -> bytes:
        """Of the bytes of a row: 32 bytes, the same wherever the row lies."""
        return hashlib.sha256(row[: self.used].numpy().data).digest()

    def head(self, row: Tensor) -> Head:
        """The head in a row."""
        at = self.outputs * self.hidden
        return Head(row[:at].view(self.outputs, self.hidden), row[at : at + self.outputs])

    def pair(self, row: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """Down [inputs, k rank] and up [k, rank, outputs] in a row; the scale is in up."""
        into, out, count = self.sides(place[1])
        down, up = self.offsets[place]
        width = count * self.rank
        return row[down : down + into * width].view(into, width), row[up : up + width * out].view(count, self.rank, out)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedAdapter:
    """One adapter as the engine runs it."""

    digest: AdapterDigest
    manifest: Manifest
    base: BaseModel
    layout: Layout
    row: Tensor
    """[floats]: its matrices and its head, in memory of its own or in a bank."""

    @property
    def byte_count(self) -> int:
        """Bytes of its row."""
        return 4 * self.layout.floats


def layout_of(base: BaseModel, head: Head, lora: LoraWeights | None) -> Layout:
    """The form of an adapter on a base."""
    hidden, inner = base.hidden, int(base.layers[0].up.shape[0])
    if lora is None:
        return Layout(0, (), len(head.bias), hidden, inner)
    places = tuple(
        (layer, part)
        for layer in range(len(base.layers))
        for part in PARTS
        if any(matrix_name(layer, module, "A") in lora.tensors for module in PARTS[part])
    )
    return Layout(next(rank for rank in RANKS if rank >= lora.rank), places, len(head.bias), hidden, inner)


def row_of(layout: Layout, head: Head, lora: LoraWeights | None) -> Tensor:
    """The row of an adapter: [floats]. A module that carries no LoRA, and what a rank lacks to its bucket, is zero."""
    whole = lora is None or (lora.rank == layout.rank and len(lora.tensors) == 2 * sum(len(PARTS[part]) for _, part in layout.places))
    row = torch.empty(layout.floats) if whole else torch.zeros(layout.floats)
    made = layout.head(row)
    made.weight.copy_(head.weight)
    made.bias.copy_(head.bias)
    for place in layout.places if lora is not None else ():
        assert lora is not None
        down, up = layout.pair(row, place)
        for k, module in enumerate(PARTS[place[1]]):
            a, b = (lora.tensors.get(matrix_name(place[0], module, side)) for side in "AB")
            if a is not None and b is not None:
                down[:, k * layout.rank : k * layout.rank + len(a)].copy_(a.T)
                torch.mul(b.T, lora.scale, out=up[k, : len(a)])
    return row
