"""Streams of labelled captures of the same distribution as the builders' reference windows, changed where a test asks for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from holdfast.domain.captures import LabelledCapture, Prediction
from holdfast.domain.ids import AdapterDigest, CaptureId
from holdfast.testing.builders import a_capture, a_digest, a_label, a_window
from holdfast.testing.twins import HIDDEN


def a_stream(
    row_count: int, seed: int, *, first_seq: int = 1, shift: float = 0.0, share_right: float = 0.9, digest: AdapterDigest | None = None
) -> list[LabelledCapture]:
    """Labelled captures with consecutive seqs. ``shift`` moves every embedding away from all that was known, in deviations."""
    rows = a_window(row_count, 1_000 + seed, share_right=share_right)
    away = np.full(HIDDEN, -shift / np.sqrt(HIDDEN))
    found = []
    for n in range(row_count):
        seq, label = first_seq + n, rows.labels[n]
        capture = replace(
            a_capture(seq),
            capture_id=CaptureId(f"s{seed}-{seq:06d}"),
            text=rows.texts[n],
            prediction=Prediction(label=rows.predictions[n], confidence=float(rows.confidences[n])),
            embedding=(rows.embeddings[n] + away).astype(np.float16),
            adapter_digest=digest or a_digest(),
            seq=seq,
        )
        assert label is not None
        found.append(LabelledCapture(capture=capture, label=replace(a_label(seq), capture_id=capture.capture_id, value=label, seq=seq)))
    return found
