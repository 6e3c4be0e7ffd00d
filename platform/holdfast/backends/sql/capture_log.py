"""Captures and labels as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from sqlalchemy import Engine, Select, func, select

from holdfast.backends.sql import tables
from holdfast.backends.sql.rows import capture_of, capture_row, label_of, label_row, producer_of, producer_row
from holdfast.backends.sql.transaction import Row, Transaction
from holdfast.domain.captures import Capture, Label, LabelledCapture
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.domain.producers import Producer, with_numbers
from holdfast.errors import NotFound

C, L = tables.captures.c, tables.labels.c
IDS_AT_ONCE = 500
"""Ids in one question; SQLite allows 32,766 parameters, older builds 999."""


class SqlCaptureLog:
    """See ``ports.CaptureLog``. Safe to share between threads; each call takes a connection of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def append(self, captures: Sequence[Capture]) -> int:
        """See the port. Raises DataInvalid on a text that no database can hold."""
        rows = [capture_row(capture) for capture in captures]
        if not rows:
            return 0
        with self._transaction() as transaction:
            count = transaction.add_new(tables.captures, rows, key=["capture_id"])
            _see(transaction, captures)
            transaction.commit()
        return count

    def label(self, labels: Sequence[Label]) -> int:
        """See the port. Raises DataInvalid on a text that no database can hold."""
        if not labels:
            return 0
        with self._transaction() as transaction:
            transaction.lock()
            known = self._known(transaction, sorted({label.capture_id for label in labels}))
            rows = []
            for label in labels:
                task, seq = known.get(label.capture_id, ("", 0))
                if task != label.task:
                    raise NotFound(kind="capture", name=label.capture_id)
                rows.append(label_row(label, seq))
            count = transaction.add_new(tables.labels, rows, key=["capture_id", "source", "value"])
            transaction.commit()
        return count

    def tasks_of(self, ids: Sequence[CaptureId]) -> Mapping[CaptureId, TaskName]:
        """See the port."""
        with self._transaction(reading=True) as transaction:
            known = self._known(transaction, sorted(set(ids)))
        return {CaptureId(capture_id): TaskName(task) for capture_id, (task, _) in known.items()}

    def after(self, task: TaskName, seq: int, limit: int = 1_000) -> tuple[Capture, ...]:
        """See the port."""
        statement = select(tables.captures).where(C.task == task, C.seq > seq).order_by(C.seq).limit(limit)
        return tuple(capture_of(row) for row in self._rows(statement))

    def labelled_after(self, task: TaskName, label_seq: int, limit: int = 1_000) -> tuple[LabelledCapture, ...]:
        """See the port."""
        statement = _joined().where(L.task == task, L.seq > label_seq).order_by(L.seq).limit(limit)
        return tuple(_labelled(row) for row in self._rows(statement))

    def labelled_since(self, task: TaskName, capture_seq: int) -> tuple[LabelledCapture, ...]:
        """See the port."""
        newest = select(func.max(L.seq)).where(L.task == task, L.capture_seq >= capture_seq).group_by(L.capture_seq)
        statement = _joined().where(L.seq.in_(newest)).order_by(L.capture_seq)
        return tuple(_labelled(row) for row in self._rows(statement))

    def newest(self, task: TaskName, limit: int) -> tuple[Capture, ...]:
        """See the port."""
        statement = select(tables.captures).where(C.task == task).order_by(C.seq.desc()).limit(limit)
        return tuple(capture_of(row) for row in reversed(self._rows(statement)))

    def texts(self, task: TaskName, capture_ids: Sequence[CaptureId]) -> Mapping[CaptureId, str]:
        """See the port."""
        found: dict[CaptureId, str] = {}
        for first in range(0, len(capture_ids), IDS_AT_ONCE):
            some = capture_ids[first : first + IDS_AT_ONCE]
            rows = self._rows(select(C.capture_id, C.task, C.text).where(C.capture_id.in_(some)))  # with the task, SQLite reads all of it
            found |= {CaptureId(str(row["capture_id"])): str(row["text"]) for row in rows if row["task"] == task}
        return found

    def count(self, task: TaskName) -> int:
        """See the port."""
        every = select(func.count()).where(C.task == task)  # both counts read an index alone; captures are wide
        return self._number(every) - self._number(every.where(tables.SHADOW))

    def producers(self) -> tuple[Producer, ...]:
        """See the port."""
        return tuple(producer_of(row) for row in self._rows(select(tables.producers).order_by(tables.producers.c.producer)))

    def label_count(self, task: TaskName) -> int:
        """See the port."""
        return self._number(select(func.count()).where(L.task == task))

    def last_seq(self, task: TaskName) -> int:
        """See the port."""
        return self._number(select(func.coalesce(func.max(C.seq), 0)).where(C.task == task))

    @contextmanager
    def _transaction(self, *, reading: bool = False) -> Iterator[Transaction]:
        transaction = Transaction(self._engine, reading=reading)
        try:
            yield transaction
        finally:
            transaction.close()

    def _rows(self, statement: Select[*tuple[object, ...]]) -> Sequence[Row]:
        with self._transaction(reading=True) as transaction:
            return [dict(row) for row in transaction.run(statement).mappings()]

    def _number(self, statement: Select[*tuple[int]]) -> int:
        with self._transaction(reading=True) as transaction:
            return int(transaction.run(statement).scalar_one())

    def _known(self, transaction: Transaction, ids: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Capture id to task and seq, of those that are stored."""
        known: dict[str, tuple[str, int]] = {}
        for first in range(0, len(ids), IDS_AT_ONCE):
            some = ids[first : first + IDS_AT_ONCE]
            rows = transaction.run(select(C.capture_id, C.task, C.seq).where(C.capture_id.in_(some)))
            known |= {capture_id: (task, seq) for capture_id, task, seq in rows}
        return known


def _see(transaction: Transaction, captures: Sequence[Capture]) -> None:
    """Note the numbers of captures, whether they were new or not, in the transaction that stores them."""
    for name in sorted({capture.producer for capture in captures if capture.producer}):
        mine = [capture for capture in captures if capture.producer == name]
        row = transaction.run(select(tables.producers).where(tables.producers.c.producer == name)).mappings().one_or_none()
        held = producer_of(row) if row is not None else None
        seen = with_numbers(held.seen if held else (), (capture.number for capture in mine))
        last_at = max([capture.captured_at for capture in mine] + ([held.last_at] if held else []))
        transaction.upsert(tables.producers, producer_row(Producer(producer=name, seen=seen, last_at=last_at)), key=["producer"])


def _joined() -> Select[*tuple[object, ...]]:
    """Labels with their captures; the label's columns are prefixed."""
    ours = [column.label(f"label_{column.name}") for column in tables.labels.c]
    return select(tables.captures, *ours).join_from(tables.labels, tables.captures, L.capture_id == C.capture_id)


def _labelled(row: Row) -> LabelledCapture:
    return LabelledCapture(capture=capture_of(row), label=label_of(row))
