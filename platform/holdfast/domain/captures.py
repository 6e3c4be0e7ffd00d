"""Captures and labels: what was asked, what was answered, and what was right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.ids import AdapterDigest, CaptureId, TaskName
from holdfast.domain.routing import RouteName

MAX_TEXT_CHARS = 20_000
"""Longer inputs are refused before they are tokenised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One answer of one adapter version."""

    label: str
    confidence: float
    """Probability of `label`, 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Capture:
    """One recorded input with its prediction and the digest of the adapter that gave it."""

    capture_id: CaptureId
    """The request id, so that a request sent twice is stored once."""
    task: TaskName
    text: str
    prediction: Prediction
    adapter_digest: AdapterDigest
    generation: int
    route: RouteName
    captured_at: datetime
    latency_ms: float
    embedding: NDArray[np.float16]
    """[hidden], the pooled vector that the head saw."""
    slices: Mapping[str, str] = field(default_factory=dict)
    seq: int = 0
    """Position in the log, given by it; grows by one or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Ground truth that came later, for one capture."""

    capture_id: CaptureId
    task: TaskName
    value: str
    source: str
    labelled_at: datetime
    seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledCapture:
    """A capture joined with its newest label."""

    capture: Capture
    label: Label

    @property
    def wrong(self) -> bool:
        """Whether the answer was not the label."""
        return self.capture.prediction.label != self.label.value
