"""The LoRA rung: LoRA on the last layers over the cached prefix, starting from the fitted head, so that it can only refine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from holdfast.backends.lora import targets as aims
from holdfast.backends.lora.base_model import BaseModel
from holdfast.backends.lora.checkpoints import Checkpoint, CheckpointFacts, Checkpoints
from holdfast.backends.lora.encoder import Packing, Segment, pool, run_layers
from holdfast.backends.lora.head import MIN_VALIDATION_ROWS, Head, Rows, decided
from holdfast.backends.lora.lora_format import LoraWeights, fuse, start_lora
from holdfast.backends.lora.prefix_cache import by_length
from holdfast.domain.retraining import CurvePoint
from holdfast.domain.tasks import LoraSpec

WARMUP_SHARE = 0.06
WEIGHT_DECAY = 0.01
SMOOTHING = 0.1
"""Label smoothing; see decisions/log-training.md."""
AVERAGE_DECAY = 0.99
"""Per step, of the running average of the parameters, which is what is scored and kept (Izmailov et al. 2018 for the idea)."""
TOKEN_DROP = 0.1
"""Share of the tokens of a row that a training step does not see: cheaper, and the one regulariser that a cached prefix allows."""
HEAD_RATE_SHARE = 0.5
"""Learning rate of the head over that of LoRA: it starts at its optimum."""
LOOKS_PER_EPOCH = 2
PATIENCE_LOOKS = 6
"""Looks without improvement after which the training stops."""
SAVE_S = 5.0
BUCKET_BATCHES = 40
"""Batches that are sorted by length together; between these groups the order is random."""


@dataclass(frozen=True, slots=True, eq=False)
class PrefixRows:
    """Rows of a split: hidden states after the frozen prefix, [tokens, hidden] in float16 each, and the target of each (`targets`)."""

    states: Sequence[Tensor]
    targets: Sequence[Tensor]
    tokens: bool = False
    """Whether each token has a target of its own."""

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, indices: Sequence[int], chance: torch.Generator | None = None) -> tuple[Tensor, Packing, Tensor]:
        """Packed states [T, hidden] in float32, their packing, and targets; with ``chance`` some tokens are left out."""
        states, targets = [self.states[i] for i in indices], [self.targets[i] for i in indices]
        if chance is not None:
            kept = [_kept(len(one), chance) for one in states]
            states = [one[keep] for one, keep in zip(states, kept, strict=True)]
            targets = [one[keep] for one, keep in zip(targets, kept, strict=True)] if self.tokens else targets
        packing = Packing.of([len(one) for one in states])
        return torch.cat(states).float(), packing, aims.together(targets, tokens=self.tokens)


def _kept(token_count: int, chance: torch.Generator) -> Tensor:
    keep = torch.rand(token_count, generator=chance) >= TOKEN_DROP
    keep[0] = True  # the first special token stays, so that no row is empty
    return keep


@dataclass(frozen=True, slots=True, eq=False)
class TrainedLora:
    """What a training ends with: the best checkpoint by validation, and how it went."""

    lora: LoraWeights
    config: dict[str, Any]
    head: Head
    curve: tuple[CurvePoint, ...]
    best_step: int
    seconds: float


@dataclass(slots=True, eq=False)
class _Run:
    base: BaseModel
    spec: LoraSpec
    seed: int
    train: PrefixRows
    validation: PrefixRows
    parameters: dict[str, Tensor]
    """LoRA matrices under PEFT's names, and ``head.weight``, ``head.bias``."""
    average: dict[str, Tensor]
    """Their running average; what is scored and kept."""
    optimiser: torch.optim.AdamW
    scale: float
    step: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_step: int = 0
    curve: list[CurvePoint] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.spec.batch_rows)

    @property
    def step_count(self) -> int:
        return self.steps_per_epoch * self.spec.epoch_count

    @property
    def steps_per_look(self) -> int:
        return max(1, self.steps_per_epoch // LOOKS_PER_EPOCH)


def train_lora(
    base: BaseModel,
    spec: LoraSpec,
    train: PrefixRows,
    validation: PrefixRows,
    *,
    head: Head,
    seed: int,
    checkpoints: Checkpoints,
    tick: Callable[[float, str], None] = lambda share, message: None,
) -> TrainedLora:
    """Train, or go on from the newest checkpoint, and return the checkpoint that did best on validation.

    The untrained start (the fitted head on the frozen base) is the first checkpoint, so the result is never worse on the
    validation rows than the head alone. Without validation rows the last checkpoint wins.
    """
    began = time.monotonic()
    lora, config = start_lora(base, spec, seed)
    run = _begin(base, spec, seed, (train, validation), lora=lora, head=head)
    before = _resume(run, checkpoints.newest())
    saved = time.monotonic()
    if run.step == 0 and not run.curve:
        _look(run)
    for indices in _batches(run):
        _advance(run, indices)
        if run.step % run.steps_per_look and run.step != run.step_count:
            continue
        _look(run)
        tick(run.step / run.step_count, f"LoRA step {run.step} of {run.step_count}, accuracy {run.curve[-1].validation_accuracy:.3f}")
        if time.monotonic() - saved > SAVE_S:
            _save(run, checkpoints, before + time.monotonic() - began)
            saved = time.monotonic()
        if _tired(run):
            break
    best = LoraWeights({n: t for n, t in run.best.items() if not n.startswith("head.")}, run.scale)
    return TrainedLora(best, config, _decided(run), tuple(run.curve), run.best_step, before + time.monotonic() - began)


def _begin(base: BaseModel, spec: LoraSpec, seed: int, rows: tuple[PrefixRows, PrefixRows], *, lora: LoraWeights, head: Head) -> _Run:
    parameters = dict(lora.tensors) | {"head.weight": head.weight.clone(), "head.bias": head.bias.clone()}
    for tensor in parameters.values():
        tensor.requires_grad_(True)
    own = [tensor for name, tensor in parameters.items() if not name.startswith("head.")]
    groups = [
        {"params": own, "share": 1.0, "weight_decay": WEIGHT_DECAY},
        {"params": [parameters["head.weight"], parameters["head.bias"]], "share": HEAD_RATE_SHARE, "weight_decay": WEIGHT_DECAY},
    ]
    optimiser = torch.optim.AdamW(groups, lr=spec.learning_rate)
    average = {name: tensor.detach().clone() for name, tensor in parameters.items()}
    return _Run(base, spec, seed, *rows, parameters=parameters, average=average, optimiser=optimiser, scale=lora.scale)


def _batches(run: _Run) -> Iterator[list[int]]:
    """The batches that are still to do: random groups of rows, sorted by length inside, batches in random order; by seed and epoch."""
    rows, size = len(run.train), run.spec.batch_rows
    for epoch in range(run.step // run.steps_per_epoch, run.spec.epoch_count):
        chance = torch.Generator().manual_seed(run.seed * 100_003 + epoch)
        order = torch.randperm(rows, generator=chance).tolist()
        batches: list[list[int]] = []
        for start in range(0, rows, size * BUCKET_BATCHES):
            group = sorted(order[start : start + size * BUCKET_BATCHES], key=lambda i: len(run.train.states[i]))
            batches.extend(group[at : at + size] for at in range(0, len(group), size))
        batches = [batches[i] for i in torch.randperm(len(batches), generator=chance).tolist()]
        yield from batches[run.step - epoch * run.steps_per_epoch :]


def _advance(run: _Run, indices: Sequence[int]) -> None:
    """One optimiser step."""
    done = run.step / run.step_count
    share = min(1.0, (run.step + 1) / max(1.0, WARMUP_SHARE * run.step_count)) * (1.0 - done)  # warm up, then linearly to 0
    for group in run.optimiser.param_groups:
        group["lr"] = run.spec.learning_rate * share * group["share"]
    chance = torch.Generator().manual_seed(run.seed * 1_000_003 + run.step)  # by step, so that a resumed run draws the same
    states, packing, targets = run.train.batch(indices, chance)
    loss = aims.loss(_logits(run, run.parameters, states, packing), targets, smoothing=SMOOTHING, tokens=run.train.tokens)
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(list(run.parameters.values()), 1.0)
    run.optimiser.step()
    run.losses.append(float(loss.detach()))
    run.step += 1
    decay = min(AVERAGE_DECAY, (1 + run.step) / (10 + run.step))  # short memory at first
    with torch.no_grad():
        for name, tensor in run.parameters.items():
            run.average[name].lerp_(tensor, 1 - decay)


def adapted_rows(base: BaseModel, lora: LoraWeights, rows: PrefixRows) -> Rows:
    """Rows of single labels as the adapted base sees them: pooled vectors with their targets, in the order of ``rows``."""
    pooled = np.zeros((len(rows), base.hidden), np.float32)
    layers = fuse(lora)
    with torch.no_grad():
        for indices in by_length([len(one) for one in rows.states]):
            states, packing, _ = rows.batch(indices)
            last = run_layers(base, states, packing, range(lora.first_layer, len(base.layers)), [Segment(0, len(states), layers)])
            pooled[indices] = pool(last, packing).numpy()
    return Rows(pooled, np.array([int(one) for one in rows.targets], np.int64))


def _logits(run: _Run, parameters: Mapping[str, Tensor], states: Tensor, packing: Packing) -> Tensor:
    lora = LoraWeights({n: t for n, t in parameters.items() if not n.startswith("head.")}, run.scale)
    segment = Segment(0, len(states), fuse(lora))
    last = run_layers(run.base, states, packing, range(lora.first_layer, len(run.base.layers)), [segment])  # [T, hidden]
    seen = last if run.train.tokens else pool(last, packing)
    return F.linear(seen, parameters["head.weight"], parameters["head.bias"])  # [rows, labels], or [T, tags]


def _look(run: _Run) -> None:
    """Score the averaged parameters on the validation rows; keep them if they are the best so far (ties: the lower loss)."""
    logits, targets, row_of = _validated(run, run.average)
    known = len(run.validation) > 0
    point = CurvePoint(
        step=run.step, epoch=run.step / run.steps_per_epoch, train_loss=sum(run.losses) / max(1, len(run.losses)),
        validation_loss=float(aims.loss(logits, targets)) if known else 0.0,
        validation_accuracy=aims.quality(logits, targets, row_of) if known else 0.0,
    )  # fmt: skip
    run.losses.clear()
    run.curve.append(point)
    if not run.best or not len(run.validation) or _rank(point) > max(_rank(one) for one in run.curve[:-1]):
        run.best, run.best_step = {name: tensor.clone() for name, tensor in run.average.items()}, run.step


def _validated(run: _Run, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits and targets of the validation rows, and of tokens the row of each; all empty without rows."""
    logits, targets, row_of, done = [torch.zeros(0, len(parameters["head.bias"]))], [torch.zeros(0, dtype=torch.int64)], [], 0
    with torch.no_grad():
        for indices in by_length([len(one) for one in run.validation.states]):
            states, packing, right = run.validation.batch(indices)
            logits.append(_logits(run, parameters, states, packing))
            targets.append(right)
            row_of.append(packing.row_of + done)
            done += len(indices)
    return torch.cat(logits), torch.cat(targets[1:] or targets), torch.cat(row_of) if run.validation.tokens and row_of else None


def _decided(run: _Run) -> Head:
    """The head of the best checkpoint; of sets with its thresholds in it."""
    head = Head(run.best["head.weight"], run.best["head.bias"])
    logits, targets, _ = _validated(run, run.best)
    return decided(head, logits, targets) if targets.is_floating_point() and len(targets) >= MIN_VALIDATION_ROWS else head


def _rank(point: CurvePoint) -> tuple[float, float]:
    return point.validation_accuracy, -point.validation_loss


def _tired(run: _Run) -> bool:
    since = [point for point in run.curve if point.step > run.best_step]
    return len(run.validation) > 0 and len(since) >= PATIENCE_LOOKS


def _save(run: _Run, checkpoints: Checkpoints, seconds: float) -> None:
    tensors = {f"now.{name}": tensor for name, tensor in run.parameters.items()}
    tensors |= {f"best.{name}": tensor for name, tensor in run.best.items()}
    tensors |= {f"mean.{name}": tensor for name, tensor in run.average.items()}
    for name, tensor in run.parameters.items():
        state = run.optimiser.state[tensor]
        tensors |= {f"first.{name}": state["exp_avg"], f"second.{name}": state["exp_avg_sq"]}
    facts = CheckpointFacts(recipe="", step=run.step, best_step=run.best_step, curve=tuple(run.curve), seconds=seconds, digest="")
    checkpoints.save(facts, tensors)


def _resume(run: _Run, checkpoint: Checkpoint | None) -> float:
    """Put a run where the checkpoint left it; the seconds spent before."""
    if checkpoint is None:
        return 0.0
    first, second = checkpoint.group("first."), checkpoint.group("second.")
    for name, tensor in run.parameters.items():
        tensor.data.copy_(checkpoint.tensors[f"now.{name}"])
        run.optimiser.state[tensor] = {
            "step": torch.tensor(float(checkpoint.facts.step)), "exp_avg": first[name], "exp_avg_sq": second[name],
        }  # fmt: skip
    run.step, run.best_step = checkpoint.facts.step, checkpoint.facts.best_step
    run.average, run.best = checkpoint.group("mean."), checkpoint.group("best.")
    run.curve = list(checkpoint.facts.curve)
    return checkpoint.facts.seconds
