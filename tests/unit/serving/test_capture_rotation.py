"""A segment that becomes full while its earlier lines are being stored keeps its last lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.domain.captures import Capture
from holdfast.serving.capture_buffer import CaptureBuffer
from holdfast.testing.memory_log import MemoryCaptureLog
from holdfast.testing.record_builders import TASK, a_capture


def test_lines_that_come_while_their_segment_fills_up_are_not_removed_with_it(tmp_path: Path) -> None:
    log = MemoryCaptureLog()
    late = [a_capture(10), a_capture(11)]

    def store(captures: Sequence[Capture]) -> int:
        while late:  # requests go on while the first nine rows are on their way into the database
            assert buffer.accept(late.pop(0))
        return log.append(captures)

    buffer = CaptureBuffer(tmp_path / "spool", store, segment_rows=10)
    for number in range(1, 10):
        assert buffer.accept(a_capture(number))
    buffer.drain()
    buffer.close()
    assert [capture.capture_id for capture in log.after(TASK, 0, 100)] == [f"c-{n:06d}" for n in range(1, 12)]
