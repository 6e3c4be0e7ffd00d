"""The capture log in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from holdfast.domain.captures import Capture, Label, LabelledCapture, check_storable
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.domain.producers import Producer, with_numbers
from holdfast.errors import NotFound, StorageRefused
from holdfast.testing.write_lock import WriteLock

_SEQ = attrgetter("seq")


class MemoryCaptureLog:
    """Twin of ``SqlCaptureLog``: the same order, the same joins, all or none."""

    def __init__(self, lock: WriteLock | None = None) -> None:
        self._lock = lock or WriteLock()
        self._captures: dict[str, list[Capture]] = {}
        self._by_id: dict[str, Capture] = {}
        self._labels: dict[str, list[Label]] = {}
        self._of_capture: dict[str, list[Label]] = {}
        self._producers: dict[str, Producer] = {}
        self._capture_seq = 0
        self._label_seq = 0
        self.full = False
        """Set it, and every write raises StorageRefused, as on a full disk."""

    def append(self, captures: Sequence[Capture]) -> int:
        """See the port."""
        self._check_space()
        for capture in captures:
            check_storable(capture)
        with self._lock:
            before = len(self._by_id)
            self._see(captures)
            for capture in captures:
                if capture.capture_id not in self._by_id:
                    self._capture_seq += 1
                    stored = replace(capture, seq=self._capture_seq, producer="", number=0)
                    self._by_id[capture.capture_id] = stored
                    self._captures.setdefault(capture.task, []).append(stored)
            return len(self._by_id) - before

    def label(self, labels: Sequence[Label]) -> int:
        """See the port."""
        self._check_space()
        with self._lock:
            for label in labels:
                check_storable(label)
                capture = self._by_id.get(label.capture_id)
                if capture is None or capture.task != label.task:
                    raise NotFound(kind="capture", name=label.capture_id)
            return sum(self._store(label) for label in labels)

    def tasks_of(self, ids: Sequence[CaptureId]) -> Mapping[CaptureId, TaskName]:
        """See the port."""
        return {capture_id: self._by_id[capture_id].task for capture_id in ids if capture_id in self._by_id}

    def after(self, task: TaskName, seq: int, limit: int = 1_000) -> tuple[Capture, ...]:
        """See the port."""
        rows = self._captures.get(task, [])
        first = bisect_right(rows, seq, key=_SEQ)
        return tuple(rows[first : first + limit])

    def labelled_after(self, task: TaskName, label_seq: int, limit: int = 1_000) -> tuple[LabelledCapture, ...]:
        """See the port."""
        rows = self._labels.get(task, [])
        first = bisect_right(rows, label_seq, key=_SEQ)
        return tuple(LabelledCapture(capture=self._by_id[x.capture_id], label=x) for x in rows[first : first + limit])

    def labelled_since(self, task: TaskName, capture_seq: int) -> tuple[LabelledCapture, ...]:
        """See the port."""
        rows = self._captures.get(task, [])
        later = rows[bisect_left(rows, capture_seq, key=_SEQ) :]
        known = ((c, self._of_capture.get(c.capture_id)) for c in later)
        return tuple(LabelledCapture(capture=c, label=labels[-1]) for c, labels in known if labels)

    def newest(self, task: TaskName, limit: int) -> tuple[Capture, ...]:
        """See the port."""
        return tuple(self._captures.get(task, [])[-limit:]) if limit > 0 else ()

    def texts(self, task: TaskName, capture_ids: Sequence[CaptureId]) -> Mapping[CaptureId, str]:
        """See the port."""
        known = {capture_id: self._by_id[capture_id] for capture_id in capture_ids if capture_id in self._by_id}
        return {capture_id: capture.text for capture_id, capture in known.items() if capture.task == task}

    def count(self, task: TaskName) -> int:
        """See the port."""
        return sum(capture.route != "shadow" for capture in self._captures.get(task, []))

    def producers(self) -> tuple[Producer, ...]:
        """See the port."""
        return tuple(self._producers[name] for name in sorted(self._producers))

    def label_count(self, task: TaskName) -> int:
        """See the port."""
        return len(self._labels.get(task, []))

    def last_seq(self, task: TaskName) -> int:
        """See the port."""
        rows = self._captures.get(task, [])
        return rows[-1].seq if rows else 0

    def _see(self, captures: Sequence[Capture]) -> None:
        for capture in captures:
            if capture.producer:
                held = self._producers.get(capture.producer)
                seen = with_numbers(held.seen if held else (), [capture.number])
                last_at = max(held.last_at, capture.captured_at) if held else capture.captured_at
                self._producers[capture.producer] = Producer(producer=capture.producer, seen=seen, last_at=last_at)

    def _store(self, label: Label) -> bool:
        known = self._of_capture.setdefault(label.capture_id, [])
        if any((x.source, x.value) == (label.source, label.value) for x in known):
            return False
        self._label_seq += 1
        stored = replace(label, seq=self._label_seq)
        known.append(stored)
        self._labels.setdefault(label.task, []).append(stored)
        return True

    def _check_space(self) -> None:
        if self.full:
            raise StorageRefused(place="the capture log", reason="the disk is full")
