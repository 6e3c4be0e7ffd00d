"""Record: captures and labels enter the log. The first arrow of the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from holdfast.domain.answers import labels_in
from holdfast.domain.captures import Capture, Label
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.domain.labelling import read_answer
from holdfast.domain.tasks import TaskContract
from holdfast.errors import DataInvalid, LabelUnknown, NotFound
from holdfast.ports import CaptureLog, House

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
    read = _read(house, contract, labels)
    known = frozenset(contract.labels)
    for label in read:
        unknown = [] if contract.labels_open else [name for name in labels_in(label.value) if name not in known]
        if unknown:
            raise LabelUnknown(label=unknown[0], task=task, known=", ".join(contract.labels[:50]))
    return house.log.label(read) if read else 0


def _read(house: House, contract: TaskContract, labels: Sequence[Label]) -> list[Label]:
    """The labels with canonical values. Only spans need the texts they lie in."""
    texts: Mapping[CaptureId, str] = {}
    if contract.kind == "extraction":
        texts = house.log.texts(contract.task, [label.capture_id for label in labels])
    found = []
    for label in labels:
        if contract.kind == "extraction" and label.capture_id not in texts:
            raise NotFound(kind="capture", name=label.capture_id)
        try:
            found.append(replace(label, value=read_answer(contract.kind, label.value, texts.get(label.capture_id, ""))))
        except DataInvalid as error:
            raise DataInvalid(**{**error.fields, "source": f"the label of {label.capture_id}"}) from None
        if len(found[-1].value.encode()) > MAX_VALUE_BYTES:
            problem, remedy = f"it is longer than {MAX_VALUE_BYTES} bytes", "name fewer or shorter spans"
            raise DataInvalid(source=f"the label of {label.capture_id}", problem=problem, place="label", remedy=remedy)
    return found
