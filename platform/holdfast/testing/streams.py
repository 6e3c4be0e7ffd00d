"""Streams of labelled captures like the builders' reference windows, changed where a test asks for it, and a house that watches them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.domain.captures import LabelledCapture, Prediction
from holdfast.domain.ids import AdapterDigest, CaptureId
from holdfast.domain.tasks import MonitoringPolicy, TaskContract
from holdfast.ports import House
from holdfast.testing.builders import (
    TASK,
    a_capture,
    a_contract,
    a_digest,
    a_house,
    a_label,
    a_version,
    a_window,
    an_adapter,
    an_assignment,
)
from holdfast.testing.memory_stores import MemoryAdapterStore
from holdfast.testing.twins import HIDDEN

CHANNELS = ("mail", "chat", "phone")


def a_stream(
    row_count: int, seed: int, *, first_seq: int = 1, shift: float = 0.0, share_right: float = 0.9, digest: AdapterDigest | None = None
) -> list[LabelledCapture]:
    """Labelled captures with consecutive seqs. ``shift`` moves every embedding away from all that was known, in deviations."""
    rows = a_window(row_count, 1_000 + seed, share_right=share_right)
    away = np.full(HIDDEN, -shift / np.sqrt(HIDDEN))
    channels = np.random.default_rng(3_000 + seed).integers(0, len(CHANNELS), row_count)
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
            slices={"channel": CHANNELS[channels[n]]},
            seq=seq,
        )
        assert label is not None
        found.append(LabelledCapture(capture=capture, label=replace(a_label(seq), capture_id=capture.capture_id, value=label, seq=seq)))
    return found


def a_watched_house(contract: TaskContract | None = None, **overrides: Any) -> tuple[House, AdapterDigest]:
    """A house of twins whose task `tickets` has a champion with a reference of 400 rows, and the champion's digest."""
    house = a_house(**overrides)
    with house.unit_of_work() as uow:
        uow.contracts.put(contract or a_contract(monitoring=MonitoringPolicy(run_length_events=10_000, report_rows=100)), house.clock())
        uow.commit()
    return house, crown(house, "first")


def crown(house: House, name: str) -> AdapterDigest:
    """Make another adapter the champion of the task, by hand; its digest."""
    assert isinstance(house.adapters, MemoryAdapterStore)
    folder = Path("/nowhere") / name
    digest = house.adapters.plant(folder, an_adapter(name, row_count=400))
    house.adapters.add(folder)
    with house.unit_of_work() as uow:
        before = uow.assignments.get(TASK)
        after = an_assignment(champion=digest, previous=before.champion if before else None, generation=uow.assignments.next_generation())
        uow.versions.put(a_version(digest=digest, number=len(uow.versions.of_task(TASK)) + 1))
        uow.assignments.put(after, expected_generation=before.generation if before else None)
        uow.commit()
    return digest


def send(house: House, rows: Sequence[LabelledCapture], *, labels: bool = True) -> None:
    """Store captures, and their labels."""
    house.log.append([row.capture for row in rows])
    if labels:
        house.log.label([row.label for row in rows])
