"""Embedding drift by betting: a witness learned from one block of traffic, bet on in the next.

A row becomes whole numbers: its coordinates along the main directions of the fitted rows, each in deviations, and random
Fourier features of a Gaussian kernel whose width is the median distance of fitted rows. A block's witness is the difference
of its mean features from those of the fitted rows, once along the coordinates and once along the Fourier features; rows of
the next block are scored by it, ranked among the calibration rows and the earlier rows of their own block (`conformal`), and
bet to score high. Blocks of several lengths run side by side.

Why it is valid. A block's witness depends on the fitted rows and on rows of earlier blocks only, so given those, calibration
rows and rows of this block are exchangeable, and its p-values are independent and uniform. They are *not* so given the
earlier p-values: those have told how far the calibration rows lie from the traffic. So no evidence crosses a boundary: the
detector of a block begins at zero. Within a block of L rows it crosses A with probability at most L / A, and by the union
bound over blocks it does so within n rows with probability at most n / A, however the blocks depend on each other. Block
lengths and kinds of witness are joined by the largest, each at its equal share, by the same bound. (Their plain average
would hold at any one row, but not under looking after each: they learn from different pasts.)

All arithmetic after the features is in whole numbers below 2**53: the same in any order and for rows in any grouping.

Sources: Shekhar, Ramdas, "Nonparametric two-sample testing by betting" (2021, arXiv 2112.09162); Rahimi, Recht, "Random
features for large-scale kernel machines" (2007); Gretton et al., "A kernel two-sample test" (2012), for the width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.statistics import e_detector
from holdfast.domain.statistics.conformal import BIN_COUNT, bins_of, edges_of, p_values

SCALES = (64, 256)
"""Rows of a block; each divides the next."""
PART_COUNT = 2
"""Kinds of witness: along the coordinates, along the Fourier features."""
COMPONENTS = PART_COUNT * len(SCALES)
"""Component ``PART_COUNT * scale + part`` of what is remembered."""
MOST_DIRECTIONS = 64
FREQUENCY_COUNT = 32
"""Each gives a cosine and a sine."""
UNIT = 1 << 10
"""Whole numbers to one deviation."""
REACH = 8
"""Deviations beyond which a feature counts as this far."""
PAIR_COUNT = 1_000
"""Pairs of fitted rows whose median distance is the kernel's width."""
EDGE_ROWS = 500
"""Fitted rows, at even steps, that the bins of a score are drawn by."""
MOST_CALIBRATION = 2_000
"""Calibration rows that are kept to be scored anew for each block; 0.5 MB."""
TILTS = (0.1, 0.25, 0.5, 0.8)
"""Exponents of the bets: from a shift by a sixth of a deviation to a gross one."""


@dataclass(frozen=True, slots=True, eq=False)
class FourierWitness:
    """Fitted on the rows a version was trained on, with the calibration rows it ranks against."""

    mean: NDArray[np.float64]
    """[hidden]"""
    directions: NDArray[np.float64]
    """[hidden, k]"""
    deviations: NDArray[np.float64]
    """[k], of the fitted rows along the directions."""
    frequencies: NDArray[np.float64]
    """[k, FREQUENCY_COUNT]"""
    centre: NDArray[np.float64]
    """[2 FREQUENCY_COUNT], mean of the Fourier features of the fitted rows."""
    spread: NDArray[np.float64]
    """[2 FREQUENCY_COUNT], their deviations."""
    known: NDArray[np.float64]
    """[features], mean of the fitted rows, in whole numbers and parts of them."""
    known_rows: int
    sample: NDArray[np.int16]
    """[at most EDGE_ROWS, features], of the fitted rows; they make the bins of a block's score."""
    calibration: NDArray[np.int16]
    """[rows, features]"""

    @property
    def parts(self) -> tuple[slice, slice]:
        """The columns of each kind of witness."""
        k = len(self.deviations)
        return slice(0, k), slice(k, k + 2 * FREQUENCY_COUNT)

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.deviations) + 2 * FREQUENCY_COUNT


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """What a witness monitor remembers besides its detector."""

    counts: NDArray[np.int64]
    """[components, bins], component ``PART_COUNT * scale + part``: calibration rows and rows of the block under way."""
    sums: NDArray[np.float64]
    """[2 scales + 1, features], whole numbers: per scale the sum of the block under way and that of the block before; last, the
    change that a person called normal (0: none)."""


def fit(fitted: NDArray[np.float64], calibration: NDArray[np.float64]) -> FourierWitness | None:
    """A witness monitor of finite rows [n, hidden]; None when they are too few to tell one direction from another."""
    k = min(MOST_DIRECTIONS, fitted.shape[1], len(fitted) // PART_COUNT**3)
    if k < 1 or np.ptp(fitted, axis=0).max() == 0.0:
        return None
    mean = fitted.mean(axis=0)
    variances, vectors = np.linalg.eigh(np.cov(fitted - mean, rowvar=False).reshape(len(mean), len(mean)))
    kept = np.flatnonzero(variances > variances[-1] * 1e-9)[::-1][:k]  # eigh gives them in rising order
    directions, deviations = vectors[:, kept], np.sqrt(variances[kept])
    random = np.random.default_rng(0)
    along = (fitted - mean) @ directions
    frequencies = random.standard_normal((len(kept), FREQUENCY_COUNT)) / _median_distance(along, random)
    waves = _waves(along, frequencies)
    spread = np.maximum(waves.std(axis=0), 1e-9)
    none = np.empty((0, 0), dtype=np.int16)
    zero = np.zeros(len(kept) + 2 * FREQUENCY_COUNT)
    bare = FourierWitness(mean, directions, deviations, frequencies, waves.mean(axis=0), spread, zero, len(fitted), none, none)
    rows, ranked = features(bare, fitted), features(bare, calibration[:MOST_CALIBRATION]).astype(np.int16)
    sample = rows[np.linspace(0, len(rows) - 1, min(EDGE_ROWS, len(rows))).astype(np.int64)].astype(np.int16)
    return dataclasses.replace(bare, known=rows.sum(axis=0) / len(rows), sample=sample, calibration=ranked)


def features(witness: FourierWitness, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whole numbers [n, features] of finite rows [n, hidden], at most ``REACH * UNIT`` in size."""
    along = (rows - witness.mean) @ witness.directions
    waves = (_waves(along, witness.frequencies) - witness.centre) / witness.spread
    both = np.concatenate([along / witness.deviations, waves], axis=1)
    found: NDArray[np.float64] = np.rint(np.clip(both, -REACH, REACH) * UNIT)
    return found


def fresh(witness: FourierWitness, accepted: NDArray[np.float64] | None = None) -> Memory:
    """A memory that has seen no row; ``accepted`` is the last row of an earlier one's sums, the change that is normal by now."""
    sums = np.zeros((2 * len(SCALES) + 1, witness.width))
    if accepted is not None:
        sums[-1] = accepted
    counts = np.zeros((COMPONENTS, BIN_COUNT), dtype=np.int64)
    counts[:, 0] = len(witness.calibration)  # until a block's witness ranks them
    return Memory(counts, sums)


def tilt_bets(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log bets [..., len(TILTS)] that p is small: densities ``((1 - p) / p)**a * sin(pi a) / (pi a)``, whose mean is 1.

    For a score that is normal they come near to the likelihood ratio of a shift by 1.7 a deviations.

    >>> grid = (np.arange(1_000_000) + 0.5) / 1_000_000
    >>> np.exp(tilt_bets(grid)).mean(axis=0).round(1).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    a = np.array(TILTS)
    odds = np.log1p(-p) - np.log(p)
    bets: NDArray[np.float64] = a * odds[..., None] + np.log(np.sin(np.pi * a) / (np.pi * a))
    return bets


def advance(
    witness: FourierWitness,
    memory: Memory,
    detector: e_detector.Detector,
    events: tuple[NDArray[np.float64], NDArray[np.float64], Sequence[int]],
    log_threshold: float,
) -> tuple[Memory, e_detector.Detector]:
    """Memory and detector after n more rows: features [n, features], ties [n, components], capture seqs [n].

    >>> random = np.random.default_rng(1)
    >>> found = fit(random.standard_normal((500, 8)), random.standard_normal((500, 8)))
    >>> memory, detector = fresh(found), e_detector.fresh(4, len(TILTS))
    >>> moved = features(found, random.standard_normal((512, 8)) + 0.5)
    >>> memory, detector = advance(found, memory, detector, (moved, random.random((512, 4)), range(1, 513)), 15.0)
    >>> 64 < detector.alarm_seq < 512
    True
    """  # fmt: skip
    rows, ties, seqs = events
    at = 0
    while at < len(rows):
        end = min(len(rows), at + SCALES[0] - detector.event_count % SCALES[0])
        part = slice(at, end)
        bets, counts = _bets(witness, memory, detector.event_count, rows[part], ties[part])
        detector = e_detector.advance(detector, bets, seqs[part], log_threshold)
        sums = memory.sums.copy()
        sums[: 2 * len(SCALES) : 2] += rows[part].sum(axis=0)
        memory, detector = _turned(witness, Memory(counts, sums), detector)
        at = end
    return memory, detector


def accepted(witness: FourierWitness, memory: Memory, event_count: int) -> NDArray[np.float64]:
    """The change [features] of the newest rows, at least a block of them: what is normal once a person said so.

    Witnesses are then learned at right angles to it, so that a change in another direction is found and this one hardly.
    """
    found = [scale for scale, length in enumerate(SCALES) if event_count >= length]
    if not found:
        return np.array(memory.sums[-1])
    scale, length = found[-1], SCALES[found[-1]]
    return _change(witness, memory.sums[2 * scale : 2 * scale + 2].sum(axis=0), length + event_count % length)


def _bets(
    witness: FourierWitness, memory: Memory, event_count: int, rows: NDArray[np.float64], ties: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Log bets [n, components, bets] of rows of one block, and the counts after them; 0 where no witness was learned yet."""
    bets, counts = np.zeros((len(rows), len(memory.counts), len(TILTS))), memory.counts.copy()
    for j, weights, columns in _in_use(witness, memory, event_count):
        edges = edges_of(witness.sample[:, columns] @ weights)
        if len(edges):
            p, counts[j] = p_values(counts[j], bins_of(rows[:, columns] @ weights, edges), ties[:, j])
            bets[:, j] = tilt_bets(p)
    return bets, counts


def _turned(witness: FourierWitness, memory: Memory, detector: e_detector.Detector) -> tuple[Memory, e_detector.Detector]:
    """At the end of a block: its sum becomes the one to learn from, the calibration rows are ranked by it, its evidence is laid down."""
    over = [scale for scale, length in enumerate(SCALES) if detector.event_count % length == 0]
    if not over:
        return memory, detector
    counts, sums, anchor = memory.counts.copy(), memory.sums.copy(), detector.anchor.copy()
    for scale in over:
        sums[2 * scale + 1], sums[2 * scale] = sums[2 * scale], 0.0
    for j, weights, columns in _in_use(witness, Memory(counts, sums), detector.event_count):
        if j // PART_COUNT in over:
            edges = edges_of(witness.sample[:, columns] @ weights)
            counts[j] = np.bincount(bins_of(witness.calibration[:, columns] @ weights, edges), minlength=counts.shape[1])
            anchor[j] = e_detector.EMPTY
    return Memory(counts, sums), dataclasses.replace(detector, anchor=anchor)


def _in_use(witness: FourierWitness, memory: Memory, event_count: int) -> Iterator[tuple[int, NDArray[np.float64], slice]]:
    """Component, its weights and its columns, for each that has learned a witness."""
    for scale, length in enumerate(SCALES):
        if event_count >= length:
            weights = _learned(witness, memory.sums[2 * scale + 1], length, memory.sums[-1])
            for part, columns in enumerate(witness.parts):
                yield PART_COUNT * scale + part, weights[columns], columns


def _learned(witness: FourierWitness, total: NDArray[np.float64], count: int, normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights [features] in whole numbers, the largest of each part ``UNIT``: the mean change less its standard error."""
    change = _change(witness, total, count)
    error = UNIT * np.sqrt(1.0 / count + 1.0 / witness.known_rows)
    weights: NDArray[np.float64] = np.sign(change) * np.maximum(np.abs(change) - error, 0.0)
    for columns in witness.parts:
        known = normal[columns]
        if known.any():
            weights[columns] -= known * ((weights[columns] * known).sum() / (known * known).sum())
        weights[columns] = np.rint(weights[columns] * (UNIT / max(float(np.abs(weights[columns]).max()), 1.0)))
    return weights


def _change(witness: FourierWitness, total: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Mean features of ``count`` rows less those of the fitted rows, in whole numbers."""
    found: NDArray[np.float64] = np.rint(total / count - witness.known)
    return found


def _waves(along: NDArray[np.float64], frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    phase = along @ frequencies
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=1)


def _median_distance(along: NDArray[np.float64], random: np.random.Generator) -> float:
    one, other = random.integers(0, len(along), (2, PAIR_COUNT))
    found = float(np.median(np.sqrt(((along[one] - along[other]) ** 2).sum(axis=1))))
    return found if found > 0.0 else 1.0
