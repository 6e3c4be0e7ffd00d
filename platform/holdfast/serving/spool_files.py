"""Spool segments: files of one capture per line, written by one process, emptied into the log by it or by whoever comes after.

A segment belongs to the living process that holds its lock (``flock``), which the kernel drops at death, ``kill -9`` included; no
recycled process id can lie about it. A line is complete when it ends with a line feed; what follows the last line feed of an
orphan was being written when its process died, so its request was never answered.
"""

from __future__ import annotations

import base64
import fcntl
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
from pydantic_core import from_json, to_json

from holdfast.domain.captures import Capture, Prediction
from holdfast.domain.ids import AdapterDigest, CaptureId, TaskName

SUFFIX = ".jsonl"


def line_of(capture: Capture) -> bytes:
    """A capture as one line of JSON, its line feed included."""
    plain = {
        "id": capture.capture_id,
        "task": capture.task,
        "text": capture.text,
        "label": capture.prediction.label,
        "confidence": capture.prediction.confidence,
        "digest": capture.adapter_digest,
        "generation": capture.generation,
        "route": capture.route,
        "at": capture.captured_at,
        "latency_ms": capture.latency_ms,
        "embedding": base64.b64encode(capture.embedding.astype("<f2", copy=False).tobytes()).decode(),
        "slices": dict(capture.slices),
        "producer": capture.producer,
        "number": capture.number,
    }
    return to_json(plain) + b"\n"


def capture_of(line: bytes) -> Capture:
    """The capture of a line. Raises ValueError, KeyError or TypeError when it is not one."""
    plain = from_json(line)
    return Capture(
        capture_id=CaptureId(plain["id"]),
        task=TaskName(plain["task"]),
        text=plain["text"],
        prediction=Prediction(label=plain["label"], confidence=float(plain["confidence"])),
        adapter_digest=AdapterDigest(plain["digest"]),
        generation=int(plain["generation"]),
        route=plain["route"],
        captured_at=datetime.fromisoformat(plain["at"]),
        latency_ms=float(plain["latency_ms"]),
        embedding=np.frombuffer(base64.b64decode(plain["embedding"]), dtype="<f2").astype(np.float16),
        slices=plain["slices"],
        producer=plain.get("producer", ""),
        number=int(plain.get("number", 0)),
    )


class Segment:
    """A segment that this process writes."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path, self._handle = path, handle
        self.size = 0
        """Bytes of whole lines."""
        self.line_count = 0
        self.closed = False

    def append(self, line: bytes) -> None:
        """Write a whole line or nothing. Raises OSError; then the segment ends with the line before."""
        try:
            written = os.write(self._handle, line)
            while written < len(line):  # a nearly full disk takes a part
                written += os.write(self._handle, line[written:])
        except OSError:
            os.ftruncate(self._handle, self.size)
            raise
        self.size += len(line)
        self.line_count += 1

    def close(self) -> None:
        """Write no more. The lock goes with it, so whoever drains may take the segment."""
        if not self.closed:
            self.closed = True
            os.close(self._handle)


def create(folder: Path, started: str) -> Segment:
    """A new segment of this process, locked. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    number = time.time_ns()
    while True:
        path = folder / f"{os.getpid()}-{started}-{number}{SUFFIX}"
        number += 1
        try:
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        if _locked(handle) and _is_still(path, handle):
            return Segment(path, handle)
        os.close(handle)  # an adopter took it in the instant between; it removes what is empty


def adopt(folder: Path) -> Iterator[tuple[Path, int]]:
    """Segments whose process is gone, each with an open, locked handle that the caller closes; in order of their making."""
    for path in sorted(folder.glob(f"*{SUFFIX}"), key=_age):
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        if _locked(handle) and _is_still(path, handle):
            yield path, handle
        else:
            os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, handle: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(handle).st_ino
    except OSError:
        return False


def _age(path: Path) -> tuple[int, str]:
    number = path.stem.rpartition("-")[2]
    return (int(number) if number.isdecimal() else 0, path.name)
