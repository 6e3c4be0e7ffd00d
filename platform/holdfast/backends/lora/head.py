"""The head rung: logistic regression on the frozen embedding, an adapter of rank 0.

Of single labels multinomial, on pooled vectors; of sets one against the rest for each label; of spans multinomial on tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.backends.lora import targets as aims
from holdfast.domain.retraining import CurvePoint

GRID = (1.0, 10.0, 30.0)
"""Weights C of the data against the penalty, on vectors of length one; the best on Banking77 is 30 (serving.md)."""
DEFAULT_C = 10.0
MIN_VALIDATION_ROWS = 20
STEPS = 200
WHOLE_TOKENS = 4_000
"""More tokens than this are fitted by small batches: a pass over all of them for each of 200 steps takes minutes, and so many rows
leave C little to say, so that it is not chosen but BATCHED_C."""
BATCHED_C, BATCH_ROWS, EPOCHS, RATE = 30.0, 1024, 16, 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A linear layer on the pooled vector, or on each token."""

    weight: Tensor
    """[labels, hidden]."""
    bias: Tensor
    """[labels]."""

    def logits(self, pooled: Tensor) -> Tensor:
        """[rows, hidden] -> [rows, labels]."""
        return torch.nn.functional.linear(pooled, self.weight, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Pooled vectors, or tokens as rows of their own, each with its target."""

    pooled: NDArray[np.float32]
    """[rows, hidden]."""
    targets: NDArray[np.int64] | NDArray[np.float32]
    """[rows], index of the right label or tag; of sets [rows, labels], 0 or 1."""
    tokens: bool = False

    @property
    def batched(self) -> bool:
        """Whether a fit sees them in small batches."""
        return self.tokens and len(self) > WHOLE_TOKENS

    def __len__(self) -> int:
        return len(self.targets)

    def __add__(self, other: Rows) -> Rows:
        pooled, targets = np.concatenate([self.pooled, other.pooled]), np.concatenate([self.targets, other.targets])
        return Rows(pooled, targets, self.tokens)


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """The head on the training rows alone (where LoRA starts), the one on all rows, and how each C did on validation."""

    on_train: Head
    on_all: Head
    c: float
    curve: tuple[CurvePoint, ...]
    best_step: int


def fit_head(train: Rows, validation: Rows, label_count: int, tick: Callable[[float], None] = lambda share: None) -> FittedHead:
    """The regression whose C answers most validation rows right (ties: the lower loss), fitted again with those rows added.

    With fewer than 20 validation rows no choice can be made and C is 10.
    """
    grid: Sequence[float] = GRID if len(validation) >= MIN_VALIDATION_ROWS else (DEFAULT_C,)
    grid = (BATCHED_C,) if train.batched else grid
    heads: list[Head] = []
    curve: list[CurvePoint] = []
    for step, c in enumerate(grid, start=1):
        heads.append(regress(train, label_count, c, start=heads[-1] if heads else None))
        accuracy, loss = score(heads[-1], validation)
        curve.append(
            CurvePoint(step=step, epoch=0.0, train_loss=score(heads[-1], train)[1], validation_loss=loss, validation_accuracy=accuracy)
        )
        tick(step / (len(grid) + 1))
    best = max(range(len(grid)), key=lambda i: (curve[i].validation_accuracy, -curve[i].validation_loss))
    on_all = regress(train + validation, label_count, grid[best], start=heads[best]) if len(validation) else heads[best]
    if len(validation) >= MIN_VALIDATION_ROWS and train.targets.ndim == 2:
        on_all = decided(on_all, heads[best].logits(torch.from_numpy(validation.pooled)), torch.from_numpy(validation.targets))
    tick(1.0)
    return FittedHead(on_train=heads[best], on_all=on_all, c=grid[best], curve=tuple(curve), best_step=best + 1)


def decided(head: Head, logits: Tensor, targets: Tensor) -> Head:
    """A head of sets whose thresholds, chosen on validation rows, are folded into its biases: above zero then means yes."""
    return Head(head.weight, head.bias + aims.thresholds(logits, targets))


def refit_head(trained: Head, train: Rows, validation: Rows) -> Head:
    """The regression on adapted vectors, all rows, unless ``trained`` is better on ``validation`` than it fitted to ``train`` alone.

    Better is more than one standard error of the paired difference: ``trained`` was the best of many looks at these rows, and the
    regression will have learned from them too. With fewer than 20 validation rows there is nothing to tell by and ``trained`` stays.
    """
    if len(validation) < MIN_VALIDATION_ROWS:
        return trained
    fitted = fit_head(train, validation, len(trained.bias))
    one, other = (_right(head, validation) for head in (trained, fitted.on_train))
    lead, apart = int(one.sum()) - int(other.sum()), int((one != other).sum())
    return trained if lead > math.sqrt(apart) else fitted.on_all


def _right(head: Head, rows: Rows) -> NDArray[np.bool_]:
    return head.logits(torch.from_numpy(rows.pooled)).argmax(1).numpy() == rows.targets  # type: ignore[no-any-return]


def regress(rows: Rows, label_count: int, c: float, start: Head | None = None) -> Head:
    """Minimum of ``c * sum of losses + |W|^2 / 2``, on vectors of mean length one; the scale goes back into W.

    By L-BFGS; of many tokens near it, by Adam on small batches in an order that is the same every time.
    """
    scale = float(np.linalg.norm(rows.pooled, axis=1).mean()) or 1.0
    centre = torch.from_numpy(rows.pooled.mean(0))  # the optimum is the same without it (the bias is free) and found much sooner
    x = (torch.from_numpy(rows.pooled) - centre) / scale  # [n, h]
    targets = torch.from_numpy(rows.targets)
    n, hidden = x.shape
    penalty = 1.0 / (c * n)

    table = torch.zeros(label_count, hidden + 1)  # weights and, in the last column, biases
    if start is not None:
        table[:, :hidden], table[:, hidden] = start.weight * scale, start.bias + start.weight @ centre
    fit = _by_batches if rows.batched else _whole
    table = fit(table, x, targets, penalty)
    weight = (table[:, :hidden] / scale).contiguous()
    return Head(weight=weight, bias=table[:, hidden] - weight @ centre)


def _objective(table: Tensor, x: Tensor, targets: Tensor, penalty: float) -> Tensor:
    hidden = x.shape[1]
    value = aims.loss(torch.addmm(table[:, hidden], x, table[:, :hidden].T), targets)
    return value + 0.5 * penalty * table[:, :hidden].square().sum()


def _by_batches(table: Tensor, x: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """Adam with a rate that falls to zero. Weights are learnt in units of sqrt(hidden), in which they are about one."""
    unit = torch.ones(table.shape[1])
    unit[:-1] = float(x.shape[1]) ** 0.5
    learnt = (table / unit).requires_grad_(True)
    optimiser = torch.optim.Adam([learnt], lr=RATE)
    steps, step = EPOCHS * -(-len(x) // BATCH_ROWS), 0
    for epoch in range(EPOCHS):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for some in torch.split(order, BATCH_ROWS):
            optimiser.param_groups[0]["lr"] = RATE * (1 - step / steps)
            optimiser.zero_grad()
            _objective(learnt * unit, x[some], targets[some], penalty).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
    return (learnt * unit).detach()


def _whole(table: Tensor, x: Tensor, targets: Tensor, penalty: float) -> Tensor:
    table = table.clone().requires_grad_(True)
    # torch's own L-BFGS rather than SciPy's: the latter's BLAS threads spin beside ours and cost more than the fit
    optimiser = torch.optim.LBFGS(
        [table], max_iter=STEPS, history_size=10, tolerance_grad=1e-6, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = _objective(table, x, targets, penalty)
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return table.detach()


def score(head: Head, rows: Rows) -> tuple[float, float]:
    """Share of right answers (of sets the mean F1) and mean loss; (0, 0) without rows."""
    if not len(rows):
        return 0.0, 0.0
    logits = head.logits(torch.from_numpy(rows.pooled))
    targets = torch.from_numpy(rows.targets)
    return aims.quality(logits, targets), float(aims.loss(logits, targets))
