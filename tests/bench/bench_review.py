"""Coverage and width of a review's interval, rows chosen for information beside rows chosen uniformly, on made errors that go with doubt.

    flock /tmp/meas/heavy python tests/bench/bench_review.py [--smoke] [--write]

A population of 5,000 captures answers wrong at a stated rate; wrong answers tend to have low confidence (area under the curve stated).
Each replicate draws rows by `domain.review_choice.choose`, as the loop does, and reveals the labels in the order they are drawn. Covered
means that the true error rate of the population lay inside the interval after every label. Beside it: as many labels chosen uniformly, with
the same interval, and with the usual fixed one (mean and standard errors) looked at after every label from the tenth on.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # noqa: TID251  set for NumPy, before it is imported: one thread, so that runs compare
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # noqa: TID251

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from holdfast.domain.captures import Capture, Prediction
from holdfast.domain.ids import CaptureId
from holdfast.domain.review_choice import UNIFORM_SHARE, choose
from holdfast.domain.scorers import Scorers
from holdfast.domain.statistics.confidence import interval
from holdfast.domain.symptoms import lexicon_of
from holdfast.testing.record_builders import a_capture

POPULATION, POPULATIONS, ALPHA, LEAST_LOOK = 5_000, 20, 0.025, 10
COUNTS = (50, 100, 200)
RATES = (0.05, 0.15, 0.40)
SEPARATIONS = {"0.5": 0.0, "0.75": 1.0, "0.9": 1.9}
"""Area under the curve of doubt against error, to the shift of the normal scores that gives it."""
RESULTS = Path(__file__).parent / "results" / "review.md"
BARE = Scorers(
    embedding=None, witness=None, novelty=None, lexicon=lexicon_of(()), label_ranks={}, label_counts={}, edges={}, calibration={}
)


@dataclass(frozen=True)
class Drawn:
    """Weighted losses in the order they were drawn, the greatest that one may be, and the truth."""

    values: NDArray[np.float64]
    top: float
    truth: float


@lru_cache(maxsize=32)
def population(rate: float, separation: float, seed: int) -> tuple[tuple[Capture, ...], NDArray[np.bool_]]:
    """Captures with confidences, and whether each is answered wrong."""
    random = np.random.default_rng(seed)
    wrong = random.random(POPULATION) < rate
    score = random.standard_normal(POPULATION) + separation * wrong
    confidence = 0.5 + 0.5 * stats.norm.cdf(1.2 - score)
    made = tuple(
        replace(a_capture(1), capture_id=CaptureId(f"c{n}"), seq=n + 1, prediction=Prediction(label="a", confidence=float(confidence[n])))
        for n in range(POPULATION)
    )
    return made, wrong


def chosen(rate: float, separation: float, seed: int) -> Drawn:
    """As the loop chooses."""
    captures, wrong = population(rate, separation, seed % POPULATIONS)
    rows = choose(captures, [], BARE, row_count=max(COUNTS), seed=f"bench-{seed}")
    order = [row for _, row in sorted(((draw, row) for row in rows for draw in row.draws), key=lambda item: item[0])]
    return Drawn(np.array([row.weight * wrong[row.seq - 1] for row in order]), 1.0 / UNIFORM_SHARE, float(wrong.mean()))


def uniform(rate: float, separation: float, seed: int) -> Drawn:
    """Each capture as likely as any other."""
    _, wrong = population(rate, separation, seed % POPULATIONS)
    picked = np.random.default_rng(seed).choice(len(wrong), max(COUNTS), replace=False)
    return Drawn(wrong[picked].astype(np.float64), 1.0, float(wrong.mean()))


def betting(drawn: Drawn, count: int) -> tuple[float, float, bool]:
    """Ours: bounds after ``count`` draws, and whether the truth was inside at every look so far, which is how the bounds are made."""
    found = interval(drawn.values[:count], alpha=ALPHA, high=drawn.top)
    assert found is not None
    return found.lower, min(1.0, found.upper), found.lower <= drawn.truth <= found.upper


def fixed(drawn: Drawn, count: int) -> tuple[float, float, bool]:
    """Mean and standard errors, which hold roughly at one count that was fixed before; looked at after every label from the tenth on."""
    n = np.arange(1, count + 1)
    mean = drawn.values[:count].cumsum() / n
    square = (drawn.values[:count] ** 2).cumsum() / n
    half = float(stats.norm.ppf(1 - ALPHA / 2)) * np.sqrt(np.maximum(square - mean**2, 0.0) / n)
    held = np.abs(mean - drawn.truth)[LEAST_LOOK:] <= half[LEAST_LOOK:]
    return float(mean[-1] - half[-1]), float(mean[-1] + half[-1]), bool(held.all())


ARMS = {"chosen, ours": (chosen, betting), "uniform, ours": (uniform, betting), "uniform, fixed interval": (uniform, fixed)}


def lines(replicates: int) -> list[str]:
    """The table, a line a cell."""
    found = []
    for rate in RATES:
        for area, separation in SEPARATIONS.items():
            drawn = {draw: [draw(rate, separation, seed) for seed in range(replicates)] for draw in (chosen, uniform)}
            for count in COUNTS:
                for name, (draw, bounds) in ARMS.items():
                    made = [bounds(one, count) for one in drawn[draw]]
                    held = sum(inside for _, _, inside in made)
                    low, high = _binomial(held, replicates)
                    width = float(np.median([upper - lower for lower, upper, _ in made]))
                    off = float(np.sqrt(np.mean([(one.values[:count].mean() - one.truth) ** 2 for one in drawn[draw]])))
                    share = f"{held / replicates:.3f} ({low:.3f} to {high:.3f})"
                    found.append(f"| {rate:.0%} | {area} | {count} | {name} | {share} | {width:.3f} | {off:.3f} |")
                    print(found[-1], flush=True)
            population.cache_clear()
    return found


def _binomial(hits: int, rows: int) -> tuple[float, float]:
    found = stats.binomtest(hits, rows).proportion_ci(0.95)
    return float(found.low), float(found.high)


HEAD = """# Intervals of a review

`{command}`, {replicates} replicates a cell, {seconds:.0f} s. 5,000 captures of which the stated share is answered wrong; the area is
that under the curve of doubt (1 - confidence) against error: 0.5 says that confidence knows nothing. Level 0.975 for each period, so
that two hold together with 0.95. Covered: the truth was inside after every label. Width, and root mean square error of the estimate, at
the stated number of draws.

| wrong | area | labels | rows and interval | covered (95% interval) | median width | error |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Run, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--smoke", action="store_true", help="few replicates")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    given = parser.parse_args()
    replicates, began = (5 if given.smoke else 200), time.monotonic()
    table = lines(replicates)
    head = HEAD.format(command="python tests/bench/bench_review.py --write", replicates=replicates, seconds=time.monotonic() - began)
    if given.write:
        RESULTS.write_text(head + "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
