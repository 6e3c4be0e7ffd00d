"""Captures and labels: what was asked, what was answered, and what was right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.ids import AdapterDigest, CaptureId, TaskName
from holdfast.domain.routing import RouteName
from holdfast.domain.tasks import CapturePolicy
from holdfast.errors import DataInvalid

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
    producer: str = ""
    """The process that accepted it, on the way to the log; what is read from the log does not say it."""
    number: int = 0
    """Among those that its producer accepted, from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Ground truth that came later, for one capture."""

    capture_id: CaptureId
    task: TaskName
    value: str
    source: str
    labelled_at: datetime
    seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """A label as a caller of the data plane gives it: by request id, perhaps before its capture is in the log."""

    capture_id: CaptureId
    task: TaskName | None
    """As the caller says; None leaves it to the capture."""
    value: str
    source: str
    given_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledCapture:
    """A capture joined with its newest label."""

    capture: Capture
    label: Label

    @property
    def wrong(self) -> bool:
        """Whether the answer was not the label."""
        return self.capture.prediction.label != self.label.value


def with_slices_of(capture: Capture, policy: CapturePolicy) -> Capture:
    """The capture with the slices that the policy names, or with all when it names none."""
    if policy.slices is None or all(name in policy.slices for name in capture.slices):
        return capture
    return replace(capture, slices={name: value for name, value in capture.slices.items() if name in policy.slices})


def unstorable(text: str) -> str | None:
    """Why no database can hold a text; None when it can. PostgreSQL has no NUL in texts, UTF-8 no half surrogate pairs.

    >>> unstorable("ça va"), unstorable("a\\x00b")
    (None, 'it holds a NUL character')
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it holds half a surrogate pair"
    return "it holds a NUL character" if "\x00" in text else None


def check_storable(record: Capture | Label) -> None:
    """Refuse a capture or label that no database can hold: one bad text, or a confidence or latency that is not finite.

    Raises:
        DataInvalid: names the capture and the field.
    """
    texts = {"capture_id": record.capture_id, "task": record.task}
    if isinstance(record, Capture):
        texts |= {"text": record.text, "label": record.prediction.label}
    else:
        texts |= {"value": record.value, "source": record.source}
    if isinstance(record, Capture) and not math.isfinite(record.prediction.confidence + record.latency_ms):
        raise _refused(record, "it is not a finite number", "confidence or latency_ms")
    for place, text in texts.items():
        problem = unstorable(text)
        if problem is not None:
            raise _refused(record, problem, place)


def _refused(record: Capture | Label, problem: str, place: str) -> DataInvalid:
    remedy = "Send text in well-formed Unicode without NUL, and finite numbers."
    return DataInvalid(source=f"capture {record.capture_id!r}", problem=problem, place=place, remedy=remedy)
