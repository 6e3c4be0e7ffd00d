"""Accuracy told without labels, or with few: error and coverage, beside what others use, under shifts of real texts.

    python tests/bench/bench_label_free.py [--smoke] [--write] [--data FOLDER]

Banking77 (needs ../shared/data or --data): a head on the frozen base, trained on 4,000 rows; 1,000 other training rows are the
reference; windows of 1,000 rows are drawn from the 3,080 test rows. Shifts: other label shares (Dirichlet 0.3), rows far from
everything known drawn more often, typing errors in every third letter pair of all or half of the texts, texts cut after four words,
out-of-scope texts (CLINC150; every answer wrong), and labels swapped (what is right changes: no method without labels can see it).
Error: mean absolute difference to the window's true accuracy, in points. Coverage of the 90% interval, with its Clopper-Pearson
interval; of the windows for which there is an estimate. Peers get the same calibration rows:
  confidence   mean confidence, as it is
  calibrated   mean of the isotonic-calibrated confidence: CBPE for accuracy (written anew: NannyML could not be installed)
  ATC          share above the threshold at which the reference's share is its accuracy (Garg et al., 2022)
  labels only  Jeffreys interval of the labels that there are
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # noqa: TID251  set before NumPy is imported: one thread, so that runs compare

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2]))

from holdfast.backends.lora.base_model import BaseModel, use_threads
from holdfast.backends.lora.head import Rows, fit_head
from holdfast.backends.lora.prefix_cache import FrozenPrefix
from holdfast.domain.statistics.label_free import Sample, calibrated, estimate
from holdfast.domain.statistics.scores import embedding_scores, fit_embedding, halved
from holdfast.settings import MINILM

RESULTS = Path(__file__).parent / "results" / "label_free.md"
DATA = Path(__file__).parents[3] / "shared" / "data"
LABELS, WINDOW = (0, 20, 100), 1_000
SWAPPED = "a quarter of the labels swapped"
Weigh = Callable[[np.random.Generator], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows that a window is drawn from."""

    sample: Sample
    truth: NDArray[np.int64]
    """[n], label; -1 out of scope."""


@dataclass(frozen=True, eq=False)
class World:
    """The model on everything."""

    reference: Sample
    pools: dict[str, Pool]


def world(data: Path, scratch: Path) -> World:
    """Train the head and answer all texts."""
    use_threads(1)
    rows = {part: list(csv.DictReader((data / "banking77" / f"{part}.csv").open(newline=""))) for part in ("train", "test")}
    names = sorted({row["category"] for row in rows["train"]})
    place = {name: i for i, name in enumerate(names)}
    frozen = FrozenPrefix(BaseModel.open("minilm", MINILM.path, MINILM.sha256), 128, scratch)
    order = np.random.default_rng(0).permutation(len(rows["train"]))[:5_000]
    train = [rows["train"][i] for i in order]
    labels = np.array([place[row["category"]] for row in train])
    vectors = frozen.pooled([row["text"] for row in train])
    fitted = fit_head(Rows(vectors[:3_600], labels[:3_600]), Rows(vectors[3_600:4_000], labels[3_600:4_000]), len(names)).on_all
    scorer = fit_embedding(halved(vectors[:4_000]), [names[i] for i in labels[:4_000]])
    assert scorer is not None, "four thousand rows carry a scorer"

    def answered(texts: list[str], truth: NDArray[np.int64]) -> Pool:
        pooled = frozen.pooled(texts)
        probability = torch.softmax(fitted.logits(torch.from_numpy(pooled)), 1).numpy().astype(np.float64)
        right = (probability.argmax(1) == truth).astype(np.float64)
        return Pool(Sample(confidence=probability.max(1), features=embedding_scores(scorer, halved(pooled)), right=right), truth)

    texts = [row["text"] for row in rows["test"]]
    truth = np.array([place[row["category"]] for row in rows["test"]])
    outside = [text for text, _ in json.loads((data / "clinc150" / "data_full.json").read_text())["oos_test"]]
    pools = {
        "plain": answered(texts, truth), "typed": answered([mistyped(text, i) for i, text in enumerate(texts)], truth),
        "cut": answered([" ".join(text.split()[:4]) for text in texts], truth), "outside": answered(outside, np.full(len(outside), -1)),
    }  # fmt: skip
    reference = answered([row["text"] for row in train[4_000:]], labels[4_000:])
    return World(reference.sample, pools)


def mistyped(text: str, seed: int) -> str:
    """Neighbouring letters swapped in about a third of the pairs."""
    random, letters = np.random.default_rng([7, seed]), list(text)
    for i in range(0, len(letters) - 1, 2):
        if random.random() < 1 / 3:
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


def windows(made: World) -> dict[str, Callable[[np.random.Generator], Sample]]:
    """Shift to how a window is drawn."""
    plain, pools = made.pools["plain"], made.pools
    far = plain.sample.features[:, 0].argsort().argsort() / len(plain.truth)

    def weighted(weigh: Weigh) -> Callable[[np.random.Generator], Sample]:
        return lambda random: picked(plain.sample, random, WINDOW, weigh(random))

    def mixed(other: str, share: float) -> Callable[[np.random.Generator], Sample]:
        count = int(WINDOW * share)
        return lambda random: joined(picked(plain.sample, random, WINDOW - count), picked(pools[other].sample, random, count))

    def swapped(random: np.random.Generator) -> Sample:
        drawn = picked(plain.sample, random, WINDOW)
        return Sample(confidence=drawn.confidence, features=drawn.features, right=np.where(random.random(WINDOW) < 0.25, 0.0, drawn.right))

    return {
        "none": weighted(lambda _: np.ones(len(far))),
        "other label shares": weighted(lambda random: random.dirichlet(np.full(plain.truth.max() + 1, 0.3))[plain.truth] + 1e-6),
        "far rows more often": weighted(lambda _: far**3),
        "typing errors, half": mixed("typed", 0.5), "typing errors, all": mixed("typed", 1.0), "cut texts, half": mixed("cut", 0.5),
        "out of scope, 10%": mixed("outside", 0.1), "out of scope, 25%": mixed("outside", 0.25), SWAPPED: swapped,
    }  # fmt: skip


def picked(rows: Sample, random: np.random.Generator, count: int, weights: NDArray[np.float64] | None = None) -> Sample:
    """So many rows, with replacement."""
    chances = None if weights is None else weights / weights.sum()
    which = random.choice(len(rows.right), count, p=chances)
    return Sample(confidence=rows.confidence[which], features=rows.features[which], right=rows.right[which])


def joined(one: Sample, other: Sample) -> Sample:
    """One after the other."""
    pairs = ((getattr(one, name), getattr(other, name)) for name in ("confidence", "features", "right"))
    confidence, features, right = (np.concatenate(pair) for pair in pairs)
    return Sample(confidence=confidence, features=features, right=right)


def guesses(reference: Sample, window: Sample) -> dict[str, float]:
    """What the peers say of a window without labels."""
    limit = np.quantile(reference.confidence, 1 - reference.right.mean())
    own = calibrated(reference, np.ones(len(reference.right)), window.confidence)
    return {
        "confidence": float(window.confidence.mean()),
        "calibrated": float(own.mean()),
        "ATC": float((window.confidence > limit).mean()),
    }


def replicate(made: World, draw: Callable[[np.random.Generator], Sample], seed: int) -> dict[str, tuple[float, float, float]]:
    """Method to error, width, and 1 where the interval holds the truth; NaN where there is none."""
    random = np.random.default_rng([3, seed])
    window, reference = draw(random), picked(made.reference, random, len(made.reference.right))
    truth = float(window.right.mean())
    found = {name: (abs(value - truth), np.nan, np.nan) for name, value in guesses(reference, window).items()}
    for count in LABELS:
        known = np.full(WINDOW, np.nan)
        rows = random.permutation(WINDOW)[:count]
        known[rows] = window.right[rows]
        told = estimate(reference, Sample(confidence=window.confidence, features=window.features, right=known), seed=seed)
        inside = float(told.lower <= truth <= told.upper)
        found[f"ours, {count}"] = (
            (np.nan, np.nan, np.nan) if told.value is None else (abs(told.value - truth), told.upper - told.lower, inside)
        )
        if count:
            hits = window.right[rows].sum()
            low, high = stats.beta.ppf([0.05, 0.95], hits + 0.5, count - hits + 0.5)
            found[f"labels only, {count}"] = (abs(hits / count - truth), high - low, float(low <= truth <= high))
    return found


def row(name: str, runs: list[dict[str, tuple[float, float, float]]]) -> str:
    """A shift's line."""
    table = {method: np.array([run[method] for run in runs]) for method in runs[0]}

    def error(method: str) -> str:
        values = table[method][:, 0]
        return f"{100 * np.nanmean(values):.1f}" if np.isfinite(values).any() else "-"

    cells = [error(method) for method in ("confidence", "calibrated", "ATC")]
    for count in LABELS:
        ours = table[f"ours, {count}"]
        kept = ours[np.isfinite(ours[:, 0])]
        cells.append(f"{error(f'ours, {count}')}; {covered(kept[:, 2])}; {1 - len(kept) / len(ours):.0%}")
        if count:
            both = np.isfinite(ours[:, 1])
            own = table[f"labels only, {count}"]
            ratio = f"{ours[both, 1].mean() / own[both, 1].mean():.2f}" if both.any() else "-"
            cells.append(f"{error(f'labels only, {count}')}; {ratio}")
    return f"| {name} | " + " | ".join(cells) + " |"


def covered(inside: NDArray[np.float64]) -> str:
    """Share, and its interval."""
    if not len(inside):
        return "-"
    low, high = stats.binomtest(int(inside.sum()), len(inside)).proportion_ci(0.95, "exact")
    return f"{inside.mean():.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few replicates, to see that it runs")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds banking77 and clinc150")
    asked = parser.parse_args()
    if not (asked.data / "banking77").is_dir():
        print(f"skipped: {asked.data} holds no banking77")
        return
    replicates, began = (3 if asked.smoke else 100), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        made = world(asked.data, Path(scratch))
    lines = [
        "| shift | confidence | calibrated | ATC | ours, no label | ours, 20 labels | 20 only | ours, 100 labels | 100 only |",
        "|---" * 9 + "|",
    ]
    everything: list[dict[str, tuple[float, float, float]]] = []
    for name, draw in windows(made).items():
        runs = [replicate(made, draw, seed) for seed in range(replicates)]
        everything += runs if name != SWAPPED else []
        lines.append(row(name, runs))
        print(lines[-1], flush=True)
    lines.append(row("**all but the last**", everything))
    text = "\n".join([
        "# Accuracy without labels, or with few", "", *(__doc__ or "").splitlines()[2:], "",
        f"{replicates} windows a shift. Cells of peers: error in points. Of ours: error; coverage; share of windows in which it withdrew. "
        "Of labels only: error; width of our interval over theirs.", "", *lines, "", f"{time.process_time() - began:.0f} CPU seconds.",
    ])  # fmt: skip
    print(text)
    if asked.write:
        RESULTS.write_text(text + "\n")


if __name__ == "__main__":
    main()
