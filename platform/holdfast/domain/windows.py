"""Windows: the frozen reference of a version, and the rows of recent traffic it is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.ids import AdapterDigest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowRows:
    """Rows of one window in columns of equal length n."""

    texts: tuple[str, ...]
    predictions: tuple[str, ...]
    confidences: NDArray[np.float32]
    """[n], 0..1."""
    embeddings: NDArray[np.float32]
    """[n, hidden]."""
    labels: tuple[str | None, ...]
    """Ground truth where it is known."""

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceWindow:
    """The frozen sample that a version is compared with; made when the version was scored, never changed."""

    adapter_digest: AdapterDigest
    fitted: WindowRows
    """Rows the version was trained on: score functions and bin edges are fitted on these."""
    calibration: WindowRows
    """Rows it never saw: monitors rank new rows among these. Independent of `fitted`, which makes the ranks exact."""
