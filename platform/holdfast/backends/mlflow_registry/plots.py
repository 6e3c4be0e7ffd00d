"""Two pictures of a run: what was confused with what, and how the checkpoints scored. Drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from holdfast.domain.retraining import CurvePoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_LABELS = 30
"""More rows than this cannot be read; then the labels with the most mistakes are shown."""


def confusion_figure(confusion: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """True labels down, predicted labels across, rows in each cell; the diagonal is right."""
    from matplotlib.figure import Figure

    labels, left_out = _shown(confusion)
    cells = np.array([[confusion.get(true, {}).get(said, 0) for said in labels] for true in labels], dtype=np.int64)
    cells = cells.reshape(len(labels), len(labels))  # [true, predicted]; keeps its shape when there is no label at all
    shares = cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)  # [true, predicted], of the rows of the true label
    side = max(5.0, 0.42 * len(labels) + 2.5)
    figure = Figure(figsize=(side, side), dpi=110, layout="constrained")
    axes = figure.subplots()
    if labels:
        axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in zip(*np.nonzero(cells), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(cells[row, column]), ha="center", va="center", fontsize=8, color=colour)
    short = [_short(label) for label in labels]
    axes.set_xticks(range(len(labels)), short, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(labels)), short, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title + (f"\n{left_out} labels with fewer mistakes left out" if left_out else ""), fontsize=10)
    return figure


def curve_figure(curve: Sequence[CurvePoint], best_step: int, title: str) -> Figure:
    """Loss and accuracy on the validation rows by step, with the checkpoint that was kept."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), dpi=110, layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    steps = [point.step for point in curve]
    left.plot(steps, [point.train_loss for point in curve], color="tab:gray", label="loss, training")
    left.plot(steps, [point.validation_loss for point in curve], color="tab:orange", label="loss, validation")
    right.plot(steps, [point.validation_accuracy for point in curve], color="tab:blue", marker=".", label="accuracy, validation")
    left.axvline(best_step, color="tab:green", linestyle=":", label=f"kept: step {best_step}")
    left.set_xlabel("step")
    left.set_ylabel("loss")
    right.set_ylabel("accuracy")
    left.set_title(title, fontsize=10)
    handles = [*left.get_lines(), *right.get_lines()]
    left.legend(handles=handles, labels=[str(line.get_label()) for line in handles], fontsize=8, loc="center right")
    return figure


def _shown(confusion: Mapping[str, Mapping[str, int]]) -> tuple[list[str], int]:
    """Labels to show, in order of name, and how many are left out."""
    labels = sorted({*confusion, *(said for row in confusion.values() for said in row)})
    if len(labels) <= SHOWN_LABELS:
        return labels, 0
    mistakes = dict.fromkeys(labels, 0)
    for true, row in confusion.items():
        for said, count in row.items():
            if said != true:
                mistakes[true] += count
                mistakes[said] += count
    kept = sorted(labels, key=lambda label: (-mistakes[label], label))[:SHOWN_LABELS]
    return sorted(kept), len(labels) - SHOWN_LABELS


def _short(label: str) -> str:
    return label if len(label) <= 28 else label[:27] + "…"
