"""Which of many monitors to suspect: e-values that hold under continuous looking, and the e-BH procedure on them.

An *e-value* is a number at least 0 whose mean is at most 1 while nothing changed. **e-BH** (Wang and Ramdas, "False discovery rate
control with e-values", JRSS-B 2022, arXiv 2009.02824) takes K of them and selects the k largest, for the greatest k with
``e_(k) >= K / (k * fdr)``. Of what it selects, at most the share ``fdr`` is false on average, however the e-values depend.

An e-detector ``Q`` is no e-value: its mean grows with what was deposited, ``E[Q_n] = E[S_n]`` (`e_detector`). ``Q_n / S_n`` is one at
an n fixed beforehand, yet not where somebody looks when it is high. So the deposits are cut in epochs that double, each with a
weight, and weights sum to 1 (stitching, as in Howard, Ramdas, McAuliffe, Sekhon 2021): with ``B_k = FIRST * 2^k`` and S in epoch k,

    e = Q / B_k / ((k + 1) (k + 2)).

At any stopping time, E[e] is at most the sum over k of ``E[Q_(last moment of epoch k, or the stop)] / B_k / ((k+1)(k+2))``, and
the mean of Q there is that of its deposits, at most B_k: so at most 1. The price beside ``Q / S`` is a factor below 2 (k+1) (k+2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FIRST = 1e-9
"""Deposits of the first epoch: those of the first events of a monitor that alarms once in 1e9 events."""
NOTHING = -math.inf
"""Log e-value of a monitor that has seen nothing."""


def anytime_log_e(log_share: float, spent: float) -> float:
    """Log e-value of an e-detector, valid at any stopping time of its stream.

    Args:
        log_share: log Q, the evidence less its log threshold; after an alarm 0, as at the alarm.
        spent: S, the deposits so far, expected false alarms; at least 0.

    >>> round(anytime_log_e(0.0, 1e-3), 2)  # an alarm, when a thousandth of a false alarm was to be expected: 6.91 less the price
    0.72
    """
    if spent <= 0.0:
        return NOTHING
    epoch = max(0, math.ceil(math.log2(spent / FIRST)))
    return log_share - math.log(FIRST) - epoch * math.log(2.0) - math.log((epoch + 1) * (epoch + 2))


def e_bh(log_e: Sequence[float], fdr: float) -> tuple[int, ...]:
    """Positions that e-BH selects, in order; of them at most the share ``fdr`` (0..1) is false on average.

    >>> e_bh([math.log(30), math.log(35), 0.0], 0.1), e_bh([math.log(25), 0.0, 0.0], 0.1)
    ((0, 1), ())
    """
    values = np.asarray(log_e, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("an e-value is not a number")
    order = np.argsort(-values, kind="stable")
    needed = math.log(len(values) / fdr) - np.log(np.arange(1, len(values) + 1)) if len(values) else np.empty(0)
    enough = np.flatnonzero(values[order] >= needed)
    count = int(enough[-1]) + 1 if len(enough) else 0
    return tuple(sorted(int(i) for i in order[:count]))
