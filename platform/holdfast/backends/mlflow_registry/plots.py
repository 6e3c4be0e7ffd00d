"""Pictures of a run: what was confused with what (of sets and spans: how well each label was found), and how the checkpoints scored.

Drawn without a display.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from holdfast.domain.answers import matches_by_label
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


def label_sums(confusion: Mapping[str, Mapping[str, int]]) -> dict[str, tuple[int, int, int]]:
    """Label or field to how often it was said rightly, was said, and was true."""
    sums: dict[str, tuple[int, int, int]] = {}
    for true, row in confusion.items():
        for said, count in row.items():
            for label, found in matches_by_label(said, true).items():
                before = sums.get(label, (0, 0, 0))
                sums[label] = (before[0] + count * found[0], before[1] + count * found[1], before[2] + count * found[2])
    return sums


def label_figure(confusion: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """Precision and recall of each label or field, those that are true most often on top."""
    from matplotlib.figure import Figure

    sums = label_sums(confusion)
    labels = sorted(sums, key=lambda label: (-sums[label][2], label))[:SHOWN_LABELS]
    figure = Figure(figsize=(7.0, max(2.5, 0.34 * len(labels) + 1.2)), dpi=110, layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(labels))
    axes.barh(places - 0.2, [sums[one][0] / max(1, sums[one][1]) for one in labels], 0.36, color="tab:blue", label="precision")
    axes.barh(places + 0.2, [sums[one][0] / max(1, sums[one][2]) for one in labels], 0.36, color="tab:orange", label="recall")
    axes.set_yticks(places, [f"{_short(one)} ({sums[one][2]})" for one in labels], fontsize=8)
    axes.set_ylim(max(1, len(labels)) - 0.4, -0.6)
    axes.set_xlim(0.0, 1.0)
    left_out = len(sums) - len(labels)
    axes.set_title(title + (f"\n{left_out} rarer labels left out" if left_out else ""), fontsize=10)
    if labels:
        axes.legend(fontsize=8, loc="lower right")
    return figure


def curve_figure(curve: Sequence[CurvePoint], best_step: int, title: str, *, quality: str = "accuracy") -> Figure:
    """Loss and ``quality`` on the validation rows by step, with the checkpoint that was kept."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), dpi=110, layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    steps = [point.step for point in curve]
    left.plot(steps, [point.train_loss for point in curve], color="tab:gray", marker=".", label="loss, training")
    left.plot(steps, [point.validation_loss for point in curve], color="tab:orange", marker=".", label="loss, validation")
    right.plot(steps, [point.validation_accuracy for point in curve], color="tab:blue", marker=".", label=f"{quality}, validation")
    left.axvline(best_step, color="tab:green", linestyle=":", label=f"kept: step {best_step}")
    if len(steps) <= 10:  # a head of spans has one point alone, and steps are whole
        left.set_xticks(steps)
    left.set_xlabel("step")
    left.set_ylabel("loss")
    right.set_ylabel(quality)
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
    """Cut in the middle: long labels of one family differ at their ends."""
    return label if len(label) <= 28 else f"{label[:14]}…{label[-13:]}"
