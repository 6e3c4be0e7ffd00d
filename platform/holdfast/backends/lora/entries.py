"""What is known of one registered adapter, wherever its weights are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from holdfast.backends.lora.banks import Seat
from holdfast.backends.lora.base_model import BaseModel
from holdfast.backends.lora.layouts import Layout, LoadedAdapter
from holdfast.domain.adapters import Manifest
from holdfast.domain.ids import AdapterDigest


@dataclass(slots=True, eq=False)
class Entry:
    """A registered adapter. All but the first six fields are guarded by the lock of its residency."""

    digest: AdapterDigest
    manifest: Manifest
    base: BaseModel
    layout: Layout
    folder: Path
    row_digest: bytes
    """Of the row that was proved: no other bytes come back into a bank."""
    stamp: tuple[int, ...] = ()
    """Of its seat when the row in it was proved, or verified on its way in."""
    seat: Seat | None = None
    host: Tensor | None = None
    claims: int = 0
    asked: bool = False
    """Whether the loader has been asked for it."""
    gone: bool = False
    """Unloaded; the last claim frees its slot."""
    failed: bool = False
    """Its files can no longer be read."""

    @property
    def byte_count(self) -> int:
        """Bytes of its row."""
        return 4 * self.layout.floats

    @property
    def loaded(self) -> LoadedAdapter:
        """The adapter in its bank; valid while it is claimed."""
        assert self.seat is not None, "it is claimed and was handed out"
        return self.on(self.seat.row)

    @property
    def written(self) -> bool:
        """Whether its seat was written to since it was proved."""
        return self.seat is not None and self.seat.stamp != self.stamp

    def on(self, row: Tensor) -> LoadedAdapter:
        """The adapter on a row."""
        return LoadedAdapter(self.digest, self.manifest, self.base, self.layout, row)
