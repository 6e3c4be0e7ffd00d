"""Record: captures and labels enter the log. The first arrow of the loop."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.domain.captures import Capture, Label
from holdfast.domain.ids import TaskName
from holdfast.errors import LabelUnknown
from holdfast.ports import CaptureLog, House


def record_captures(log: CaptureLog, captures: Sequence[Capture]) -> int:
    """Store captures; the number that was new. A capture sent again, or twice in one call, is stored once.

    Raises:
        StorageRefused, PartUnavailable: nothing of the call was stored; send it again later.
    """
    return log.append(captures) if captures else 0


def record_labels(house: House, task: TaskName, labels: Sequence[Label]) -> int:
    """Store ground truth for captures of a task; the number that was new. All or none.

    Raises:
        NotFound: the task (kind `task`) or the capture of a label (kind `capture`) is unknown.
        LabelUnknown: a value is not a label of the task and the contract does not open its labels.
        StorageRefused: nothing was stored.
    """
    with house.unit_of_work() as work:
        contract = work.contracts.get(task)
    known = frozenset(contract.labels)
    for label in labels:
        if label.value not in known and not contract.labels_open:
            raise LabelUnknown(label=label.value, task=task, known=", ".join(contract.labels[:50]))
    return house.log.label(labels) if labels else 0
