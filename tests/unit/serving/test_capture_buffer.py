"""Captures: what was acknowledged reaches the log exactly once, whatever dies in between."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from holdfast.domain.captures import Capture
from holdfast.errors import DataInvalid
from holdfast.serving import spool_files
from holdfast.serving.capture_buffer import CaptureBuffer
from holdfast.testing.memory_log import MemoryCaptureLog
from holdfast.testing.record_builders import TASK, a_capture

CHILD = """
import sys
from pathlib import Path
from holdfast.serving.capture_buffer import CaptureBuffer
from holdfast.testing.record_builders import a_capture
def gone(captures): raise OSError("no database in this process")
buffer = CaptureBuffer(Path(sys.argv[1]), gone, segment_rows=50)
for number in range(1, 1_000_000):
    assert buffer.accept(a_capture(number))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def buffer_of(folder: Path, store: Callable[[Sequence[Capture]], int], segment_rows: int = 10) -> CaptureBuffer:
    return CaptureBuffer(folder / "spool", store, segment_rows=segment_rows, pause_s=0.005)


def ids(log: MemoryCaptureLog) -> list[str]:
    return [capture.capture_id for capture in log.after(TASK, 0, 1_000_000)]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "spool").glob("*.jsonl"))


def test_a_capture_comes_out_of_its_line_as_it_went_in() -> None:
    capture = a_capture(3, text='Zeile\neins \u2028 \U0001f600 "quoted"')
    line = spool_files.line_of(capture)
    back = spool_files.capture_of(line)
    assert line.count(b"\n") == 1
    assert np.array_equal(back.embedding, capture.embedding)
    assert back.embedding.dtype == np.float16
    assert {f: getattr(back, f) for f in capture.__dataclass_fields__ if f != "embedding"} == {
        f: getattr(capture, f) for f in capture.__dataclass_fields__ if f != "embedding"
    }


def test_captures_of_several_segments_reach_the_log_in_order_and_the_files_go(tmp_path: Path) -> None:
    log = MemoryCaptureLog()
    buffer = buffer_of(tmp_path, log.append)
    for number in range(1, 36):
        assert buffer.accept(a_capture(number))
    assert len(files(tmp_path)) == 4
    assert buffer.drain() == 35
    assert ids(log) == [f"c-{number:06d}" for number in range(1, 36)]
    assert len(files(tmp_path)) == 1  # the one that is still written
    buffer.close()
    assert files(tmp_path) == []


def test_the_thread_brings_captures_without_being_asked(tmp_path: Path) -> None:
    log = MemoryCaptureLog()
    buffer = buffer_of(tmp_path, log.append)
    buffer.start()
    buffer.accept(a_capture(1))
    deadline = time.monotonic() + 10
    while not ids(log) and time.monotonic() < deadline:
        time.sleep(0.005)
    buffer.close()
    assert ids(log) == ["c-000001"]


def test_a_dead_database_delays_captures_and_loses_none(tmp_path: Path) -> None:
    log = MemoryCaptureLog()
    log.full = True
    buffer = buffer_of(tmp_path, log.append)
    buffer.start()
    for number in range(1, 26):
        assert buffer.accept(a_capture(number))
    deadline = time.monotonic() + 10
    while buffer.failing is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert buffer.failing is not None
    log.full = False
    buffer.close()
    assert len(ids(log)) == 25


def test_captures_that_could_not_be_brought_before_the_end_are_brought_by_the_next_process(tmp_path: Path) -> None:
    log = MemoryCaptureLog()
    log.full = True
    before = buffer_of(tmp_path, log.append)
    before.accept(a_capture(1))
    before.close()
    log.full = False
    assert buffer_of(tmp_path, log.append).drain() == 1
    assert files(tmp_path) == []


def test_kill_9_loses_no_acknowledged_capture_and_stores_each_once(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with subprocess.Popen([sys.executable, "-c", CHILD, str(spool)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        acknowledged = [int(child.stdout.readline()) for _ in range(500)]
        child.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout.read().split("\n")[:-1]]
    log = MemoryCaptureLog()
    buffer = buffer_of(tmp_path, log.append)
    buffer.drain()
    stored = ids(log)
    assert len(stored) == len(set(stored))
    assert {f"c-{number:06d}" for number in acknowledged} <= set(stored)
    assert len(stored) <= len(acknowledged) + 1  # at most the one whose reply was never sent
    assert files(tmp_path) == []


def test_a_segment_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    living = buffer_of(tmp_path, len)
    living.accept(a_capture(1))
    log = MemoryCaptureLog()
    assert buffer_of(tmp_path, log.append).drain() == 0
    assert len(files(tmp_path)) == 1


def test_a_half_written_last_line_of_a_dead_process_is_skipped_and_counted(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    whole = spool_files.line_of(a_capture(1))
    (spool / "1-x-1.jsonl").write_bytes(whole + spool_files.line_of(a_capture(2))[:-40])
    log = MemoryCaptureLog()
    buffer = buffer_of(tmp_path, log.append)
    assert buffer.drain() == 1
    assert (ids(log), buffer.counts.torn, files(tmp_path)) == (["c-000001"], 1, [])


def test_a_line_that_is_no_capture_is_set_aside_and_stops_nobody(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "1-x-1.jsonl").write_bytes(b'{"id": 1}\n\xff\xfe\n' + spool_files.line_of(a_capture(1)))
    log = MemoryCaptureLog()
    buffer = buffer_of(tmp_path, log.append)
    assert buffer.drain() == 1
    assert buffer.counts.unreadable == 2
    assert (spool / "refused.txt").read_bytes() == b'{"id": 1}\n\xff\xfe\n'


def test_a_capture_that_the_log_will_never_take_is_set_aside_and_the_others_go_in(tmp_path: Path) -> None:
    log = MemoryCaptureLog()

    def picky(captures: Sequence[Capture]) -> int:
        if any(capture.text == "poison" for capture in captures):
            raise DataInvalid(source="captures", problem="poison", place="text", remedy="none")
        return log.append(captures)

    buffer = buffer_of(tmp_path, picky)
    for number, text in enumerate(["one", "poison", "three"], start=1):
        buffer.accept(a_capture(number, text=text))
    assert buffer.drain() == 2
    assert (ids(log), buffer.counts.unreadable) == (["c-000001", "c-000003"], 1)


def test_a_full_disk_refuses_the_capture_whole_and_takes_the_next_when_there_is_room(tmp_path: Path) -> None:
    log = MemoryCaptureLog()
    buffer = buffer_of(tmp_path, log.append, segment_rows=1000)
    assert buffer.accept(a_capture(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = next((tmp_path / "spool").glob("*.jsonl")).stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))  # a part of the line fits, as on a nearly full disk
        taken = buffer.accept(a_capture(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert not taken
    assert buffer.counts.refused == 1
    assert buffer.accept(a_capture(3))
    assert buffer.drain() == 2
    assert (ids(log), buffer.counts.unreadable, buffer.counts.torn) == (["c-000001", "c-000003"], 0, 0)


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/sys/fs").exists(), reason="needs a read-only place")
def test_a_spool_that_cannot_be_made_refuses_and_does_not_raise(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file where the folder should be")
    buffer = buffer_of(tmp_path, len)
    assert not buffer.accept(a_capture(1))
