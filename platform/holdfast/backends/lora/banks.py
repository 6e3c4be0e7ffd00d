"""Banks: memory reserved once, in slots of one row each. Registering an adapter is a copy into a free slot, however many there are."""

from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from holdfast.backends.lora.layouts import Layout

_NO_RESERVE = 0x4000 if sys.platform == "linux" else 0
"""MAP_NORESERVE: address space costs nothing until a slot is written (Python names it from 3.12 on)."""


@dataclass(frozen=True, slots=True, eq=False)
class Seat:
    """A slot that an adapter sits in."""

    bank: Bank
    slot: int

    @property
    def row(self) -> Tensor:
        """[floats], a view into the bank."""
        return self.bank.rows[self.slot]

    @property
    def stamp(self) -> tuple[int, ...]:
        """Another one than before where the slot was written to, or anything of its bank by somebody else."""
        return self.bank.stamp(self.slot)


class Bank:
    """Slots for adapters of one form. Not locked: its owner is `residency`.

    Torch counts the writes to a tensor, and all rows are one tensor. So a bank counts its own writes, one per row that it takes: what
    torch counted beyond them somebody else wrote, to whichever row.
    """

    def __init__(self, layout: Layout, slot_count: int) -> None:
        self.layout = layout
        self.row_bytes = 4 * layout.floats
        self._memory = mmap.mmap(-1, slot_count * self.row_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
        self.rows = torch.frombuffer(self._memory, dtype=torch.float32).view(slot_count, layout.floats)
        """[slots, floats]."""
        self._free = list(range(slot_count))[::-1]
        self._writes: dict[int, int] = {}
        self._own_writes = self.rows._version

    def seat(self, row: Tensor) -> Seat:
        """Copy a row into a free slot; there must be one."""
        slot = self._free.pop()
        self.rows[slot].copy_(row)
        self._own_writes += 1
        self._writes[slot] = self._writes.get(slot, 0) + 1
        return Seat(self, slot)

    def stamp(self, slot: int) -> tuple[int, ...]:
        """Where the rows lie, which of them it is, how often it was taken, and how often somebody else wrote to any of them."""
        return (self.rows.data_ptr(), slot, self._writes[slot], self.rows._version - self._own_writes)

    def leave(self, slot: int) -> None:
        """Free a slot and hand its memory back to the system."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._memory.madvise(mmap.MADV_DONTNEED, slot * self.row_bytes, self.row_bytes)
        self._free.append(slot)


class Banks:
    """One bank per form of adapter, and one budget over all of them."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._banks: dict[Layout, Bank] = {}

    def fits(self, layout: Layout) -> bool:
        """Whether a row of this form has room now."""
        return self.used_bytes + 4 * layout.floats <= self.budget_bytes

    def seat(self, layout: Layout, row: Tensor) -> Seat:
        """Copy a row into a slot; `fits` must hold."""
        if layout not in self._banks:
            self._banks[layout] = Bank(layout, max(1, self.budget_bytes // (4 * layout.floats)))
        self.used_bytes += 4 * layout.floats
        return self._banks[layout].seat(row)

    def leave(self, seat: Seat) -> None:
        """Free the slot of a seat."""
        self.used_bytes -= seat.bank.row_bytes
        seat.bank.leave(seat.slot)
