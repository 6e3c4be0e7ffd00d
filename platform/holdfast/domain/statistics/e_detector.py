"""Shiryaev-Roberts e-detectors on p-values, a mixture over a grid of bets, in log space.

A bet ``b`` is a density on 0..1: under no change its mean is 1, given the past. The detector of one bet is
``R_n = (R_{n-1} + 1) * b(p_n)``; the average over bets is a detector too, since ``R_n - n`` is a martingale under no change.
So, for an alarm at ``R >= A``: the mean number of events to a false alarm is at least A, and the probability of one within
n events is at most n / A, for every n, finite sample. Several streams of p-values (components) of the same rows are joined
by the largest one, each counted at ``1 / components``: the bound n / A then holds by the union bound, however they depend.

Sources: Shin, Ramdas, Rinaldo, "E-detectors" (2022, arXiv 2203.03532); the onset is that of Page's CUSUM (1954), the last
reset of the strongest bet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EMPTY = -1e300
"""Stands for log 0: finite, so that it survives JSON, and far below any evidence."""
STEPS: tuple[tuple[float, float], ...] = (
    (0.01, 0.08), (0.01, 0.35), (0.05, 0.15), (0.05, 0.45), (0.2, 0.35), (0.2, 0.65), (0.5, 0.62), (0.5, 0.8),
)  # fmt: skip
"""(theta, q): the bet that a share q of the p-values will lie below theta. From a slight to a gross change."""
LADDERS: tuple[tuple[tuple[float, float], ...], ...] = (((0.01, 0.4), (0.03, 0.4), (0.1, 0.2)), ((0.03, 0.5), (0.1, 0.5)))
"""Each of (theta, weight): where the p-values of strange rows lie, evenly below theta with that weight."""
LADDER_SHARES = (0.08, 0.4)
"""Shares of strange rows that the ladder bets stand for."""
RATIOS = (1.35, 1.8, 2.5, 4.0, 8.0)
"""Factors on the odds of an error; the bets on 0/1 outcomes."""
CELLS = 10
"""Cells of the learned bet's histogram."""
FORGET = 0.98
"""Weight that one more event leaves to the earlier ones in that histogram; about the last 50 events count."""
PRIOR = 2.0
"""Events that each cell is credited with; keeps the learned bet bounded and near 1 while little was learned."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detector:
    """What a detector of J components with K bets each remembers. Serialised and read back, it goes on bit for bit."""

    log_r: NDArray[np.float64]
    """[J, K]"""
    cusum: NDArray[np.float64]
    """[J, K], the CUSUM beside each bet."""
    start: NDArray[np.int64]
    """[J, K], capture seq at which that CUSUM last left zero."""
    event_count: int = 0
    evidence: float = EMPTY
    """Log of the joined detector now; of its highest value since the alarm, after one."""
    alarm_seq: int = 0
    """Capture seq of the first crossing; 0 before. An alarm stays: only a new detector is quiet again."""
    onset_seq: int = 0
    """Where the change most likely began; fixed at the alarm."""


def fresh(components: int, bets: int) -> Detector:
    """A detector that has seen nothing."""
    shape = (components, bets)
    return Detector(log_r=np.full(shape, EMPTY), cusum=np.zeros(shape), start=np.zeros(shape, dtype=np.int64))


def step_bets(p: NDArray[np.float64], *, two_sided: bool = True) -> NDArray[np.float64]:
    """Log bets [n, J, K] of the grid ``STEPS`` on p [n, J]; K doubles when two-sided.

    >>> step_bets(np.array([[0.005]])).shape
    (1, 1, 16)
    """
    theta, q = np.array(STEPS).T
    inside, outside = np.log(q / theta), np.log((1 - q) / (1 - theta))
    low = np.where(p[..., None] <= theta, inside, outside)
    if not two_sided:
        return np.asarray(low, dtype=np.float64)
    return np.concatenate([low, np.where(1 - p[..., None] <= theta, inside, outside)], axis=-1)


def ladder_bets(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log bets [..., K] that a share of the p-values lies on the low rungs of a ladder and the rest evenly in 0..1.

    >>> grid = (np.arange(100_000) + 0.5) / 100_000
    >>> np.exp(ladder_bets(grid)).mean(axis=0).round(3).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    found = []
    for ladder in LADDERS:
        low = sum(np.where(p < theta, weight / theta, 0.0) for theta, weight in ladder)
        found += [np.log(1.0 - share + share * low) for share in LADDER_SHARES]
    return np.stack(found, axis=-1)


def odds_bets(p: NDArray[np.float64], theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log bets [n, J, len(RATIOS)] that the odds of ``p <= theta`` are a multiple of those of theta.

    ``theta`` [n] must be known before p is (the error frequency so far), inside 0..1.
    """
    ratio = np.array(RATIOS)
    q = theta[:, None] * ratio / (1 - theta[:, None] + theta[:, None] * ratio)  # [n, K]
    inside, outside = np.log(q / theta[:, None]), np.log((1 - q) / (1 - theta[:, None]))
    bets: NDArray[np.float64] = np.where(p[..., None] <= theta[:, None, None], inside[:, None, :], outside[:, None, :])
    return bets


def learned_bets(p: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log bets [n, J, 1] by the forgetting histogram of earlier p-values, and its weights [J, CELLS] after them.

    Finds changes that move p-values to the middle, such as one common label crowding out the others.
    """
    weights = weights.copy()
    rows = np.arange(p.shape[1])
    cells = np.minimum((p * CELLS).astype(np.int64), CELLS - 1)  # [n, J]
    density = np.empty(p.shape)
    for i, cell in enumerate(cells):
        density[i] = (weights[rows, cell] + PRIOR) / (weights.sum(axis=1) + PRIOR * CELLS) * CELLS
        weights *= FORGET
        weights[rows, cell] += 1.0
    return np.log(density)[..., None], weights


def advance(detector: Detector, log_bets: NDArray[np.float64], seqs: Sequence[int], log_threshold: float) -> Detector:
    """The detector after n more events.

    Args:
        detector: of J components with K bets.
        log_bets: [n, J, K], finite.
        seqs: [n], capture seq of each event.
        log_threshold: an alarm is raised at the first event at which the evidence reaches it.
    """
    if not np.isfinite(log_bets).all():
        raise ValueError("a bet is not finite")
    log_r, cusum, start = detector.log_r, detector.cusum, detector.start
    evidence, alarm_seq, onset_seq = detector.evidence, detector.alarm_seq, detector.onset_seq
    share = np.log(log_r.size)  # J components at 1/J, each a mean over K bets
    for bets, seq in zip(log_bets, seqs, strict=True):
        log_r = np.logaddexp(log_r, 0.0) + bets
        start = np.where(cusum <= 0.0, seq, start)
        cusum = np.maximum(cusum, 0.0) + bets
        now = float(np.logaddexp.reduce(log_r, axis=1).max() - share)
        evidence = max(evidence, now) if alarm_seq else now
        if not alarm_seq and now >= log_threshold:
            alarm_seq, onset_seq = seq, onset_of(cusum, start)
    return dataclasses.replace(
        detector, log_r=log_r, cusum=cusum, start=start, event_count=detector.event_count + len(seqs),
        evidence=evidence, alarm_seq=alarm_seq, onset_seq=onset_seq,
    )  # fmt: skip


def onset_of(cusum: NDArray[np.float64], start: NDArray[np.int64]) -> int:
    """Capture seq at which the strongest CUSUM [J, K] last left zero; 0 when none stands above it."""
    best = int(np.argmax(cusum))
    return int(start.flat[best]) if cusum.flat[best] > 0 else 0


def dump(detector: Detector) -> dict[str, Any]:
    """Plain JSON values; floats keep every bit."""
    arrays = {name: getattr(detector, name).tolist() for name in ("log_r", "cusum", "start")}
    return arrays | {name: getattr(detector, name) for name in ("event_count", "evidence", "alarm_seq", "onset_seq")}


def load(plain: Mapping[str, Any]) -> Detector:
    """The detector that ``dump`` gave."""
    return Detector(
        log_r=np.array(plain["log_r"], dtype=np.float64),
        cusum=np.array(plain["cusum"], dtype=np.float64),
        start=np.array(plain["start"], dtype=np.int64),
        event_count=int(plain["event_count"]),
        evidence=float(plain["evidence"]),
        alarm_seq=int(plain["alarm_seq"]),
        onset_seq=int(plain["onset_seq"]),
    )
