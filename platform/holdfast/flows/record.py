"""Record: captures and labels enter the log. The first arrow of the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from holdfast.domain.answers import labels_in
from holdfast.domain.captures import Capture, Feedback, Label
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.domain.labelling import labels_named, read_answer
from holdfast.domain.redaction import redacted_label
from holdfast.domain.tasks import TaskContract
from holdfast.errors import BadInput, DataInvalid, LabelUnknown, NotFound
from holdfast.ports import CaptureLog, House, UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What became of some feedback."""

    stored_count: int
    """New in the log; the rest of what was taken was known there already."""
    unmatched: tuple[Feedback, ...]
    """Of captures that are not in the log, or not yet."""
    refused: tuple[tuple[Feedback, str], ...]
    """What can never be stored, each with the reason."""


MAX_VALUE_BYTES = 2_400
"""Of a stored label in its canonical text: PostgreSQL indexes it, and an entry of its indexes holds 2,700 bytes."""


def record_captures(log: CaptureLog, captures: Sequence[Capture]) -> int:
    """Store captures; the number that was new. A capture sent again, or twice in one call, is stored once.

    Raises:
        StorageRefused, PartUnavailable: nothing of the call was stored; send it again later.
    """
    return log.append(captures) if captures else 0


def record_labels(house: House, task: TaskName, labels: Sequence[Label]) -> int:
    """Store ground truth for captures of a task; the number that was new. All or none.

    Values may come in any form that ``labelling.read_answer`` reads; they are stored in their canonical text.

    Raises:
        NotFound: the task (kind `task`) or the capture of a label (kind `capture`) is unknown.
        LabelUnknown: a value is not a label of the task and the contract does not open its labels.
        DataInvalid: a value is not an answer of the task's kind, or its spans do not fit the text of the capture.
        StorageRefused: nothing was stored.
    """
    with house.unit_of_work() as work:
        contract = work.contracts.get(task)
    read = read_labels(house.log, contract, labels)
    return house.log.label(read) if read else 0


def check_label(contract: TaskContract, value: str) -> None:
    """What can be known of a label before its capture is at hand: its form, and the labels or fields it names.

    Raises DataInvalid, LabelUnknown.
    """
    if contract.kind != "extraction":
        canonical_label(contract, value, "", source="of the label")
        return
    try:
        named = labels_named(contract.kind, value)
    except DataInvalid as error:
        raise DataInvalid(**{**error.fields, "source": "of the label"}) from None
    _check_known(contract, named)


def canonical_label(contract: TaskContract, value: str, text: str, *, source: str) -> str:
    """The canonical text of a label of a capture whose input is ``text``.

    Raises:
        DataInvalid: it cannot be read as one of the task's kind, or is too long to be stored.
        LabelUnknown: it names a label that the contract does not have.
    """
    value = redacted_label(value, contract.capture.redact, contract.labels)
    try:
        read = read_answer(contract.kind, value, text)
    except DataInvalid as error:
        raise DataInvalid(**{**error.fields, "source": source}) from None
    if len(read.encode()) > MAX_VALUE_BYTES:
        problem, remedy = f"it is longer than {MAX_VALUE_BYTES} bytes", "name fewer or shorter spans"
        raise DataInvalid(source=source, problem=problem, place="label", remedy=remedy)
    _check_known(contract, labels_in(read))
    return read


def _check_known(contract: TaskContract, named: Sequence[str]) -> None:
    unknown = [] if contract.labels_open else [name for name in named if name not in contract.labels]
    if unknown:
        raise LabelUnknown(label=unknown[0], task=contract.task, known=", ".join(contract.labels[:50]))


def read_labels(log: CaptureLog, contract: TaskContract, labels: Sequence[Label]) -> list[Label]:
    """The labels of a task as they are stored, with canonical values; only spans need the texts they lie in.

    Raises:
        NotFound, DataInvalid, LabelUnknown.
    """
    texts: Mapping[CaptureId, str] = {}
    if contract.kind == "extraction":
        texts = log.texts(contract.task, [label.capture_id for label in labels])
    found = []
    for label in labels:
        if contract.kind == "extraction" and label.capture_id not in texts:
            raise NotFound(kind="capture", name=label.capture_id)
        text = texts.get(label.capture_id, "")
        found.append(replace(label, value=canonical_label(contract, label.value, text, source=f"of the label of {label.capture_id}")))
    return found


def record_feedback(unit_of_work: Callable[[], UnitOfWork], log: CaptureLog, given: Sequence[Feedback]) -> Delivered:
    """Store those labels whose capture is known; say which are not, and which never will be. Storing twice is storing once.

    Raises:
        StorageRefused, PartUnavailable: the log does not answer; a part may be stored, so give all of it again later.
    """
    tasks = log.tasks_of([one.capture_id for one in given])
    with unit_of_work() as work:
        contracts = {contract.task: contract for contract in work.contracts.all() if contract.task in set(tasks.values())}
    refused: list[tuple[Feedback, str]] = []
    stored = 0
    for task in sorted(set(tasks.values())):
        mine = [one for one in given if tasks.get(one.capture_id) == task]
        stored += _store(log, task, contracts.get(task), mine, refused=refused)
    unmatched = tuple(one for one in given if one.capture_id not in tasks)
    return Delivered(stored_count=stored, unmatched=unmatched, refused=tuple(refused))


def _store(
    log: CaptureLog, task: TaskName, contract: TaskContract | None, given: Sequence[Feedback], *, refused: list[tuple[Feedback, str]]
) -> int:
    """All of one task at once; one by one where one of them cannot be stored."""
    try:
        labels: Sequence[Label] = [_label(one, task) for one in given]
        return log.label(read_labels(log, contract, labels) if contract else labels)
    except BadInput as error:
        if len(given) == 1:
            refused.append((given[0], error.message))
            return 0
    return sum(_store(log, task, contract, [one], refused=refused) for one in given)


def _label(one: Feedback, task: TaskName) -> Label:
    if one.task is not None and one.task != task:
        raise BadInput(problem=f"The capture {one.capture_id} is of task {task}, not of {one.task}.")
    return Label(capture_id=one.capture_id, task=task, value=one.value, source=one.source, labelled_at=one.given_at)
