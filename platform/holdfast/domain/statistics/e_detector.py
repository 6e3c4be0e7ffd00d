"""Shiryaev-Roberts e-detectors on p-values, a mixture over a grid of bets, in log space.

A bet ``b`` is a density on 0..1: under no change its mean is 1, given the past. The detector of one bet is
``R_n = (R_{n-1} + 1) * b(p_n)``; the average over bets is a detector too, since ``R_n - n`` is a martingale under no change.
So, for an alarm at ``R >= A``: the mean number of events to a false alarm is at least A, and the probability of one within
n events is at most n / A, for every n, finite sample. Several streams of p-values (components) of the same rows are joined
by the largest one, each counted at ``1 / components``: the bound n / A then holds by the union bound, however they depend.

The threshold may change while the stream runs. Counted in thresholds, ``Q = R / A``, each event deposits 1 / A and an alarm is
``Q >= 1``: ``Q_n - S_n`` is a martingale under no change, with S_n the sum of the deposits, whatever each of them is, as long as it
is set before its event is looked at. So the probability of an alarm by a stopping time is at most the mean of what was deposited by
then. A new threshold therefore changes what later events deposit, and leaves Q as it is (`rescaled`).

Sources: Shin, Ramdas, Rinaldo, "E-detectors" (2022, arXiv 2203.03532); the onset is that of Page's CUSUM (1954), the last
reset of the strongest bet.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EMPTY = -1e300
"""Stands for log 0: finite, so that it survives JSON, and far below any evidence."""
SLACK = 1e-9
"""Rounding that the bound of `_joined` allows for, relative to logarithms of at most thousands."""
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
    """What a detector of J components with K bets each remembers. Serialised and read back, it goes on bit for bit.

    With S_n the sum of a bet's logarithms, ``log R_n = S_n + log sum of exp(-S_i) over i < n`` and the CUSUM is S_n less the least S_i
    of i < n: running sums and running minima, which come out the same in whatever portions the events are read.
    """

    total: NDArray[np.float64]
    """[J, K], S_n."""
    anchor: NDArray[np.float64]
    """[J, K], the logarithm of that sum of exp(-S_i)."""
    least: NDArray[np.float64]
    """[J, K], the least S_i of i < n."""
    start: NDArray[np.int64]
    """[J, K], capture seq at which the CUSUM last left zero."""
    event_count: int = 0
    evidence: float = EMPTY
    """Log of the joined detector now; of its highest value since the alarm, after one."""
    alarm_seq: int = 0
    """Capture seq of the first crossing; 0 before. An alarm stays: only a new detector is quiet again."""
    onset_seq: int = 0
    """Where the change most likely began; fixed at the alarm."""
    log_threshold: float = 0.0
    """In whose units the evidence is; 0 before the first event."""
    spent: float = 0.0
    """Sum of the deposits up to the alarm: expected false alarms, those of the detectors before this one included."""

    @property
    def cusum(self) -> NDArray[np.float64]:
        """[J, K], the CUSUM beside each bet; below zero where the last event spoke against a change."""
        return self.total - self.least


def fresh(components: int, bets: int) -> Detector:
    """A detector that has seen nothing."""
    shape = (components, bets)
    return Detector(total=np.zeros(shape), anchor=np.full(shape, EMPTY), least=np.zeros(shape), start=np.zeros(shape, dtype=np.int64))


def rescaled(detector: Detector, log_threshold: float) -> Detector:
    """The detector under another threshold: as far from its alarm as before, counted in thresholds.

    >>> half = dataclasses.replace(fresh(1, 1), evidence=2.0, log_threshold=4.0)
    >>> rescaled(half, 10.0).evidence
    8.0
    """
    if detector.log_threshold in (0.0, log_threshold):
        return detector
    by = log_threshold - detector.log_threshold
    return dataclasses.replace(detector, anchor=detector.anchor + by, evidence=detector.evidence + by, log_threshold=log_threshold)


def after(detector: Detector, before: Detector) -> Detector:
    """A detector that follows another on the same stream, and goes on with its account."""
    return dataclasses.replace(detector, spent=before.spent)


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
    from scipy.signal import lfilter  # takes most of a second to import, and only who watches needs it

    if not len(p):
        return np.empty((*p.shape, 1)), weights
    cells = np.minimum((p * CELLS).astype(np.int64), CELLS - 1)  # [n, J]
    hits = (cells[..., None] == np.arange(CELLS)).astype(np.float64)  # [n, J, CELLS]
    after = lfilter([1.0], [1.0, -FORGET], hits, axis=0, zi=FORGET * weights[None])[0]
    before = np.concatenate([weights[None], after[:-1]])
    held = np.take_along_axis(before, cells[..., None], axis=2)[..., 0]
    density = (held + PRIOR) / (before.sum(axis=2) + PRIOR * CELLS) * CELLS
    return np.log(density)[..., None], after[-1]


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
    detector = rescaled(detector, log_threshold)
    if not len(seqs):
        return detector
    total = np.cumsum(np.concatenate([detector.total[None], log_bets]), axis=0)  # [n + 1, J, K], S before the first event and after each
    anchor = np.logaddexp.accumulate(np.concatenate([detector.anchor[None], -total[:-1]]), axis=0)[1:]
    least = np.minimum.accumulate(np.concatenate([detector.least[None], total[:-1]]), axis=0)  # [n + 1, J, K], as it is known after each
    now = _joined(total[1:] + anchor, detector.evidence if detector.alarm_seq else log_threshold)
    track, count = _Track(total, least, np.asarray(seqs, dtype=np.int64), detector.start), len(seqs)
    evidence, alarm_seq, onset_seq, paying = float(now[-1]), detector.alarm_seq, detector.onset_seq, 0 if detector.alarm_seq else count
    if not alarm_seq and (now >= log_threshold).any():
        first = int((now >= log_threshold).argmax())
        paying = first + 1
        alarm_seq, onset_seq = int(seqs[first]), onset_of(total[first + 1] - least[first + 1], track.start_at(first))
        evidence = float(now[first:].max())
    elif alarm_seq:
        evidence = max(detector.evidence, float(now.max()))
    return Detector(
        total=total[-1], anchor=anchor[-1], least=least[-1], start=track.start_at(count - 1),
        event_count=detector.event_count + count, evidence=evidence, alarm_seq=alarm_seq, onset_seq=onset_seq,
        log_threshold=log_threshold, spent=_sum(detector.spent, math.exp(-log_threshold), paying),
    )  # fmt: skip


def _sum(before: float, each: float, count: int) -> float:
    """``before`` and ``count`` times ``each``, added one by one: the same bits in whatever portions."""
    return float(np.cumsum(np.concatenate([[before], np.full(count, each)]))[-1])


def _joined(log_r: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """Log [n] of the joined detector from log_r [n, J, K]: J components at 1/J, each a mean over K.

    Exact for the last event and wherever it may reach ``level``; elsewhere minus infinity. It is at most the largest of log_r less
    log J, which is found without logarithms.
    """
    needed = log_r.max(axis=(1, 2)) - np.log(log_r.shape[1]) >= level - SLACK
    needed[-1] = True
    found = np.full(len(log_r), -np.inf)
    found[needed] = np.logaddexp.reduce(log_r[needed], axis=2).max(axis=1) - np.log(log_r[0].size)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Track:
    """Where each CUSUM left zero, while n events pass."""

    total: NDArray[np.float64]
    least: NDArray[np.float64]
    """Both [n + 1, J, K], before the first event and after each."""
    seqs: NDArray[np.int64]
    start: NDArray[np.int64]
    """[J, K], before the first event."""

    def start_at(self, i: int) -> NDArray[np.int64]:
        """[J, K], after event ``i`` of these."""
        at_zero = self.total[: i + 1] <= self.least[: i + 1]  # [i + 1, J, K]: the CUSUM stood at zero when the event came
        last = i - at_zero[::-1].argmax(axis=0)
        return np.where(at_zero.any(axis=0), self.seqs[last], self.start)


def onset_of(cusum: NDArray[np.float64], start: NDArray[np.int64]) -> int:
    """Capture seq at which the strongest CUSUM [J, K] last left zero; 0 when none stands above it."""
    best = int(np.argmax(cusum))
    return int(start.flat[best]) if cusum.flat[best] > 0 else 0


def dump(detector: Detector) -> dict[str, Any]:
    """Plain JSON values; floats keep every bit."""
    arrays = {name: getattr(detector, name).tolist() for name in ("total", "anchor", "least", "start")}
    return arrays | {
        name: getattr(detector, name) for name in ("event_count", "evidence", "alarm_seq", "onset_seq", "log_threshold", "spent")
    }


def load(plain: Mapping[str, Any]) -> Detector:
    """The detector that ``dump`` gave, also before it kept sums."""
    if "log_r" in plain:
        anchor, least = np.array(plain["log_r"], dtype=np.float64), -np.array(plain["cusum"], dtype=np.float64)
        total = np.zeros_like(anchor)
    else:
        total, anchor, least = (np.array(plain[name], dtype=np.float64) for name in ("total", "anchor", "least"))
    return Detector(
        total=total, anchor=anchor, least=least, start=np.array(plain["start"], dtype=np.int64), event_count=int(plain["event_count"]),
        evidence=float(plain["evidence"]), alarm_seq=int(plain["alarm_seq"]), onset_seq=int(plain["onset_seq"]),
        log_threshold=float(plain.get("log_threshold", 0.0)), spent=float(plain.get("spent", 0.0)),
    )  # fmt: skip
