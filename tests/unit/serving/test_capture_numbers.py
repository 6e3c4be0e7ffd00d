"""What a gateway accepted is numbered, so that the log knows exactly what it lacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.backends.sql import SqlDatabase
from holdfast.ports import CaptureLog
from holdfast.serving.capture_buffer import CaptureBuffer
from holdfast.testing.record_builders import TASK, a_capture


@pytest.fixture
def log(tmp_path: Path) -> Iterator[CaptureLog]:
    database = SqlDatabase(f"sqlite:///{tmp_path / 'h.db'}")
    database.migrate()
    yield database.log()
    database.dispose()


def buffer_of(folder: Path, log: CaptureLog) -> CaptureBuffer:
    return CaptureBuffer(folder / "spool", log.append, segment_rows=10)


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "spool").glob("*.jsonl"), key=lambda path: int(path.stem.rpartition("-")[2]))


def test_a_lost_spool_file_is_missed_number_by_number_and_holds_up_nobody(tmp_path: Path, log: CaptureLog) -> None:
    buffer = buffer_of(tmp_path, log)
    for number in range(1, 46):
        assert buffer.accept(a_capture(number))
    segments(tmp_path)[1].unlink()
    assert buffer.drain() == 35
    (producer,) = log.producers()
    assert (producer.producer, producer.highest, producer.seen_count) == (buffer.producer, 45, 35)
    assert (producer.missing_count, producer.missing) == (10, ((11, 20),))
    assert log.count(TASK) == 35
    assert buffer.waiting_bytes == 0
    buffer.close()


def test_a_lost_spool_file_that_was_still_written_shows_with_the_next_capture(tmp_path: Path, log: CaptureLog) -> None:
    buffer = buffer_of(tmp_path, log)
    for number in range(1, 8):
        buffer.accept(a_capture(number))
        if number == 4:
            assert buffer.drain() == 4
    segments(tmp_path)[0].unlink()
    assert buffer.drain() == 0
    assert (log.producers()[0].missing_count, buffer.waiting_bytes) == (0, 0)
    buffer.accept(a_capture(8))
    assert buffer.drain() == 1
    assert log.producers()[0].missing == ((5, 7),)
    buffer.close()


def test_a_lost_file_of_a_process_that_died_is_missed_too(tmp_path: Path, log: CaptureLog) -> None:
    def away(_: object) -> int:
        raise OSError("no database")

    before = CaptureBuffer(tmp_path / "spool", away, segment_rows=10)
    for number in range(1, 31):
        before.accept(a_capture(number))
    before.close()
    segments(tmp_path)[0].unlink()
    after = buffer_of(tmp_path, log)
    after.accept(a_capture(31))
    assert after.drain() == 21
    assert {p.producer: p.missing for p in log.producers()} == {before.producer: ((1, 10),), after.producer: ()}
    after.close()


def test_a_line_read_twice_and_a_request_sent_twice_are_not_missing(tmp_path: Path, log: CaptureLog) -> None:
    buffer = buffer_of(tmp_path, log)
    for number in (1, 2, 1, 3):
        buffer.accept(a_capture(number))
    kept = segments(tmp_path)[0].read_bytes()
    assert buffer.drain() == 3
    buffer.close()
    (tmp_path / "spool" / "1-x-1.jsonl").write_bytes(kept)
    assert buffer_of(tmp_path, log).drain() == 0
    (producer,) = log.producers()
    assert (producer.highest, producer.seen_count, producer.missing_count) == (4, 4, 0)


def test_a_capture_that_the_disk_refuses_leaves_no_hole(tmp_path: Path, log: CaptureLog) -> None:
    buffer = CaptureBuffer(tmp_path / "spool", log.append, segment_rows=10, limit_bytes=1_000)
    assert not buffer.accept(a_capture(1, text="x" * 2_000))
    assert buffer.accept(a_capture(2))
    assert buffer.drain() == 1
    assert (log.producers()[0].highest, log.producers()[0].missing_count) == (1, 0)
    buffer.close()


def test_two_buffers_of_one_process_are_two_producers(tmp_path: Path, log: CaptureLog) -> None:
    assert buffer_of(tmp_path, log).producer != buffer_of(tmp_path, log).producer
