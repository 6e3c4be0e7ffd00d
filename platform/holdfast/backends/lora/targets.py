"""What a head is trained towards, for every kind: targets, loss, the score that chooses a checkpoint, and thresholds.

The form of the targets says the kind: one index per row ([rows], integers), 0 or 1 per row and label ([rows, labels], floats), or
one tag per token ([tokens], integers, with IGNORED at the special tokens).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from holdfast.backends.lora.base_model import Offsets
from holdfast.domain.answers import labels_in, spans_in
from holdfast.domain.tasks import Kind

IGNORED = -100
"""Tag of a token that is neither learnt nor scored."""
SHIFTS = torch.arange(-2.5, 2.51, 0.25)
"""Logits by which a threshold may differ from zero."""
MIN_POSITIVES = 8
"""Validation rows with a label below which the label takes the threshold that suits all labels together."""


def row_targets(kind: Kind, labels: Sequence[str], values: Sequence[str], offsets: Sequence[Offsets] = ()) -> list[Tensor]:
    """One target per row: [], [labels] or [tokens]. Every label must be among ``labels``; ``offsets`` are asked for by an extraction."""
    place = {label: i for i, label in enumerate(labels)}
    if kind == "classification":
        return [torch.tensor(place[value]) for value in values]
    if kind == "extraction":
        return [_tags(place, value, where) for value, where in zip(values, offsets, strict=True)]
    found = []
    for value in values:
        row = torch.zeros(len(labels))
        row[[place[label] for label in labels_in(value)]] = 1.0
        found.append(row)
    return found


def together(targets: Sequence[Tensor], *, tokens: bool) -> Tensor:
    """The targets of a batch: [rows], [rows, labels], or of packed tokens [T]."""
    return torch.cat(list(targets)) if tokens else torch.stack(list(targets))


def loss(logits: Tensor, targets: Tensor, *, smoothing: float = 0.0, tokens: bool = False) -> Tensor:
    """Mean over rows (or tokens) of the cross entropy; of sets the sum over labels of their logistic losses.

    Only single labels are smoothed: a set's confidence multiplies over labels and a span's least tag decides, so both would sink.
    """
    if targets.is_floating_point():
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
    return F.cross_entropy(logits, targets, label_smoothing=0.0 if tokens else smoothing, ignore_index=IGNORED)


def quality(logits: Tensor, targets: Tensor, row_of: Tensor | None = None) -> float:
    """Share of rows that are right; of sets the mean F1 of a row at the thresholds that suit these rows. 0 without rows.

    ``row_of`` [T] names the row of each token; a row is right when every tag is.
    """
    if not len(targets):
        return 0.0
    if targets.is_floating_point():
        said = logits + thresholds(logits, targets) > 0
        both = (said & (targets > 0.5)).sum(1)
        size = said.sum(1) + targets.sum(1)
        return float(torch.where(size > 0, 2 * both / size.clamp(min=1), 1.0).mean())
    wrong = (logits.argmax(1) != targets) & (targets != IGNORED)
    if row_of is None:
        return 1.0 - float(wrong.float().mean())
    rows = torch.zeros(int(row_of.max()) + 1).index_add(0, row_of, wrong.float())
    return float((rows == 0).float().mean())


def thresholds(logits: Tensor, targets: Tensor) -> Tensor:
    """What to add to each label's logit [labels] so that zero decides best, by F1 on these rows (ties: the smaller shift).

    Regularised regression is shy of rare labels; without this most of them would never be said. A label with few validation rows
    takes the shift that is best for all labels pooled.
    """
    pooled = _best_shift(logits.flatten(), targets.flatten())
    own = [
        _best_shift(logits[:, k], targets[:, k]) if int(targets[:, k].sum()) >= MIN_POSITIVES else pooled for k in range(targets.shape[1])
    ]
    return torch.tensor(own)


def _best_shift(logits: Tensor, targets: Tensor) -> float:
    said = logits[None] + SHIFTS[:, None] > 0  # [shifts, n]
    both = (said & (targets > 0.5)).sum(1)
    f1 = 2 * both / (said.sum(1) + targets.sum()).clamp(min=1)
    best = max(range(len(SHIFTS)), key=lambda i: (round(float(f1[i]), 6), -abs(float(SHIFTS[i]))))
    return float(SHIFTS[best])


def _tags(place: dict[str, int], value: str, offsets: Offsets) -> Tensor:
    """Tags of one text [tokens]: the first token that meets a span begins it."""
    tags = torch.tensor([0 if end > start else IGNORED for start, end in offsets])
    for span in spans_in(value):
        inside = [i for i, (start, end) in enumerate(offsets) if start < span.end and end > span.start and end > start]
        for nth, i in enumerate(inside):
            tags[i] = 1 + place[span.field] + (len(place) if nth else 0)
    return tags
