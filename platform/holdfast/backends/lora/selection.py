"""Which training rows a training learns from: without those whose labels look wrong, and with how much of the past.

Both are told by heads on the frozen embeddings that are there anyway. A label is suspected by confident learning (Northcutt, Jiang,
Chuang, 2021, JAIR 70): heads that were not taught a row say another label, surer than they commonly are of rows that carry it. Rows of a
period are judged by heads of that period alone, for a meaning that has changed is no error.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.backends.lora.head import DEFAULT_C, MIN_VALIDATION_ROWS, Rows, regress, score
from holdfast.domain.datasets import ReplayTrial, SnapshotRow, SuspectedRow, TaughtRows

FOLDS = 4
MIN_CLASS_ROWS = 10
"""A label with fewer rows in a period is not judged, nor suggested: the heads hardly know it."""
MARGIN = 0.5
"""By how much the probability of the other label must be above that of the row's own."""
SHARES = (1.0, 0.5, 0.25)
KEPT_ROWS = 5
"""A replay keeps so many rows of each label at least."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows of a split with what a head sees of them, in the same order."""

    rows: Sequence[SnapshotRow]
    seen: Rows

    def at(self, positions: Sequence[int]) -> Split:
        """The rows at these positions."""
        chosen = np.asarray(positions, np.int64)
        return Split([self.rows[i] for i in positions], Rows(self.seen.pooled[chosen], self.seen.targets[chosen]))

    def of(self, period: str) -> list[int]:
        """Positions of the rows of a period."""
        return [i for i, row in enumerate(self.rows) if row.period == period]


def select(train: Split, validation: Split, labels: Sequence[str], max_suspected_share: float) -> tuple[list[int], TaughtRows]:
    """Positions of the training rows to learn from, in their order, and what was decided."""
    suspected = _suspected(train, labels, int(max_suspected_share * len(train.rows))) if train.seen.targets.ndim == 1 else {}
    clean = [i for i in range(len(train.rows)) if i not in suspected]
    trials, share, kept = _replay(train.at(clean), validation, len(labels))
    chosen = [clean[i] for i in kept]
    return chosen, TaughtRows(taught_count=len(chosen), suspected=tuple(suspected.values()), replay_share=share, replay_trials=trials)


def _suspected(train: Split, labels: Sequence[str], most: int) -> dict[int, SuspectedRow]:
    """Position to why, the surest first; at most ``most``."""
    found: list[tuple[float, int, int]] = []
    for period in ("past", "recent") if most else ():
        at = train.of(period)
        for place, label, margin in doubts(train.at(at).seen, len(labels)):
            found.append((-margin, at[place], label))
    rows = train.rows
    return {
        at: SuspectedRow(row_id=rows[at].row_id, text=rows[at].text, label=rows[at].label, source=rows[at].source,
                         suggested=labels[label], margin=-minus)
        for minus, at, label in sorted(found)[:most]
    }  # fmt: skip


def doubts(rows: Rows, label_count: int) -> list[tuple[int, int, float]]:
    """Position, suggested label and margin of each row whose label is suspected."""
    targets = rows.targets.astype(np.int64)
    counts = np.bincount(targets, minlength=label_count)
    known = counts >= MIN_CLASS_ROWS
    if known.sum() < 2:
        return []
    said = _out_of_fold(rows, label_count)  # [n, labels]
    own = said[np.arange(len(targets)), targets]  # [n]
    usual = np.bincount(targets, weights=own, minlength=label_count) / np.maximum(counts, 1)  # [labels]
    sure = np.where((said >= usual) & known, said, -1.0)
    other = sure.argmax(1)
    margin = sure[np.arange(len(targets)), other] - own
    wrong = (other != targets) & known[targets] & (margin >= MARGIN)
    return [(int(i), int(other[i]), float(margin[i])) for i in np.flatnonzero(wrong)]


def _out_of_fold(rows: Rows, label_count: int) -> NDArray[np.float64]:
    """Probabilities [n, labels] of each row by a head that was taught the other folds."""
    fold = np.random.default_rng(0).permutation(len(rows)) % FOLDS
    said = np.zeros((len(rows), label_count))
    for one in range(FOLDS):
        taught, asked = fold != one, fold == one
        head = regress(Rows(rows.pooled[taught], rows.targets[taught]), label_count, DEFAULT_C)
        said[asked] = torch.softmax(head.logits(torch.from_numpy(rows.pooled[asked])), 1).numpy()
    return said


def _replay(train: Split, validation: Split, label_count: int) -> tuple[tuple[ReplayTrial, ...], float, list[int]]:
    """The trials, the chosen share, and the positions to learn from.

    Chosen is the most past rows whose mean score of both periods is within one standard error of the best (the one-standard-error rule
    of Breiman et al., 1984): less of the past must be surely better.
    """
    past, recent = train.of("past"), train.of("recent")
    judges = [validation.at(validation.of(period)).seen for period in ("past", "recent")]
    whole = list(range(len(train.rows)))
    if not past or not recent or min(len(rows) for rows in judges) < MIN_VALIDATION_ROWS:
        return (), 1.0, whole
    balanced = len(recent) / len(past)
    shares = sorted({*SHARES, *([balanced] if balanced < 1.0 else [])}, reverse=True)
    tried: list[tuple[ReplayTrial, list[int]]] = []
    for share in shares:
        replayed = _some(train, past, share)
        head = regress(train.at([*replayed, *recent]).seen, label_count, DEFAULT_C)
        scores = [score(head, rows)[0] for rows in judges]
        tried.append((ReplayTrial(share=share, row_count=len(replayed), past_score=scores[0], recent_score=scores[1]), replayed))
    best = max((trial for trial, _ in tried), key=_mean)
    enough = _mean(best) - _error(best, judges)
    trial, replayed = next(one for one in tried if _mean(one[0]) >= enough)
    return tuple(one for one, _ in tried), trial.share, sorted([*replayed, *recent])


def _mean(trial: ReplayTrial) -> float:
    return (trial.past_score + trial.recent_score) / 2


def _error(trial: ReplayTrial, judges: Sequence[Rows]) -> float:
    """Standard error of the mean of both scores, each a share of right answers."""
    variances = (s * (1 - s) / len(rows) for s, rows in zip((trial.past_score, trial.recent_score), judges, strict=True))
    return math.sqrt(sum(variances)) / 2


def _some(train: Split, past: Sequence[int], share: float) -> list[int]:
    """A share of the past rows of each label, but no fewer than ``KEPT_ROWS``; drawn by a hash of the text."""
    if share >= 1.0:
        return list(past)
    drawn = sorted(past, key=lambda i: hashlib.blake2b(train.rows[i].text.encode(), digest_size=8).digest())
    counts = Counter(train.rows[i].label for i in past)
    taken: Counter[str] = Counter()
    chosen = []
    for i in drawn:
        label = train.rows[i].label
        if taken[label] < max(KEPT_ROWS, share * counts[label]):
            taken[label] += 1
            chosen.append(i)
    return sorted(chosen)
