"""Near-duplicates: recall and precision against comparing every pair, beside datasketch; time and memory at 100,000 texts; Banking77.

    python tests/bench/bench_near_duplicates.py --banking77 FOLDER [--peer PYTHON] [--smoke] [--write]

FOLDER holds `train.csv` and `test.csv` with the columns `text` and `category`. PYTHON is an interpreter that has `datasketch` and NumPy
(`pip install datasketch`); without it the peer is left out. The peer gets the same shingles, 128 permutations and the same threshold;
its candidates are not verified, which is its stock use. Truth: the exact similarity of every pair of 2,000 texts, 1,000 of them copies of
others with one or two words changed at random under a seed.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.near_duplicates import SIMILARITY, clusters, shingles

RESULTS = Path(__file__).parent / "results" / "near_duplicates.md"
PEER = """
import json, sys, time
from datasketch import MinHash, MinHashLSH
tables, threshold = json.load(sys.stdin)
began = time.perf_counter()
lsh, pairs = MinHashLSH(threshold=threshold, num_perm=128), []
for number, table in enumerate(tables):
    one = MinHash(num_perm=128)
    one.update_batch([shingle.encode() for shingle in table])
    pairs += [(int(other), number) for other in lsh.query(one)]
    lsh.insert(str(number), one)
json.dump({"pairs": pairs, "seconds": time.perf_counter() - began}, sys.stdout)
"""


def read(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def varied(texts: Sequence[str], count: int, seed: int) -> list[str]:
    """``count`` texts, every other one a copy of an earlier one with one or two words changed."""
    chance = random.Random(seed)
    words = sorted({word for text in texts for word in text.split()})
    made: list[str] = []
    for number in range(count):
        if number % 2 == 0:
            made.append(f"{chance.choice(texts)} {chance.choice(words)} {chance.choice(words)}")
            continue
        copy = chance.choice(made).split()
        for _ in range(chance.randint(1, 2)):
            copy[chance.randrange(len(copy))] = chance.choice(words)
        made.append(" ".join(copy))
    return made


def true_pairs(texts: Sequence[str]) -> set[tuple[int, int]]:
    tables = [shingles(text) for text in texts]
    return {(a, b) for a, b in combinations(range(len(texts)), 2) if len(tables[a] & tables[b]) >= SIMILARITY * len(tables[a] | tables[b])}


def together(pairs: set[tuple[int, int]], count: int) -> NDArray[np.intp]:
    """Cluster numbers [count] of the pairs' graph."""
    root = list(range(count))

    def top(one: int) -> int:
        while root[one] != one:
            root[one] = one = root[root[one]]
        return one

    for a, b in pairs:
        root[top(max(a, b))] = top(min(a, b))
    return np.array([top(one) for one in range(count)])


def rates(found: NDArray[np.intp], truth: NDArray[np.intp]) -> str:
    """Recall and precision over pairs that are in one cluster."""
    same, right = (one[:, None] == one[None, :] for one in (found, truth))
    np.fill_diagonal(same, val=False)
    np.fill_diagonal(right, val=False)
    both = (same & right).sum()
    return f"{both / right.sum():.4f} | {both / max(1, same.sum()):.4f}"


def accuracy(texts: Sequence[str], peer: str | None) -> list[str]:
    truth = together(true_pairs(texts), len(texts))
    began = time.perf_counter()
    found = clusters(texts)
    lines = [f"| ours | {rates(found, truth)} | {time.perf_counter() - began:.2f} |"]
    if peer is not None:
        said = ask_peer(texts, peer)
        lines.append(f"| datasketch | {rates(together({tuple(p) for p in said['pairs']}, len(texts)), truth)} | {said['seconds']:.2f} |")
    return [f"| {len(texts):,} texts | recall of pairs in a cluster | precision of pairs in a cluster | s |", "|---|---|---|---|", *lines]


def ask_peer(texts: Sequence[str], peer: str) -> dict[str, Any]:
    sent = json.dumps([[sorted(shingles(text)) for text in texts], SIMILARITY])
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(PEER)
        file.flush()
        answer = subprocess.run([peer, file.name], input=sent, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(answer.stdout)
    return told


def size(texts: Sequence[str], peer: str | None) -> list[str]:
    lines = ["| texts | clusters | ours s | peak memory of the process MB | datasketch s |", "|---|---|---|---|---|"]
    for count in (len(texts) // 10, len(texts)):
        began = time.perf_counter()
        number = len(set(clusters(texts[:count]).tolist()))
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        beside = f"{ask_peer(texts[:count], peer)['seconds']:.1f}" if peer is not None else "not asked"
        lines.append(f"| {count:,} | {number:,} | {seconds:.1f} | {peak:.0f} | {beside} |")
    return lines


def banking77(train: Sequence[tuple[str, str]], test: Sequence[tuple[str, str]]) -> list[str]:
    """What near-duplicates there are between and within the published splits."""
    labels = [label for _, label in (*train, *test)]
    found = clusters([text for text, _ in (*train, *test)])
    _, sizes = np.unique(found, return_counts=True)
    leaked = np.isin(found[len(train) :], found[: len(train)]).sum()
    by_cluster: dict[int, set[str]] = {}
    for cluster, label in zip(found.tolist(), labels, strict=True):
        by_cluster.setdefault(cluster, set()).add(label)
    clash = sum(len(some) > 1 for some in by_cluster.values())
    return [
        f"- {leaked} of {len(test):,} published test rows ({leaked / len(test):.1%}) are near-duplicates of a published training row.",
        f"- {(sizes > 1).sum()} clusters hold {sizes[sizes > 1].sum()} of {len(found):,} rows, the largest {sizes.max()};"
        f" {clash} of them carry more than one label.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--banking77", type=Path, required=True)
    parser.add_argument("--peer")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    train, test = (read(given.banking77 / name) for name in ("train.csv", "test.csv"))
    texts = [text for text, _ in train]
    count = 5_000 if given.smoke else 100_000
    parts = [
        f"# Near-duplicates\n\n{__doc__}\nThreshold: similarity {SIMILARITY}; shingles are words and pairs of neighbouring words.",
        "## Against the truth\n", *accuracy(varied(texts, 500 if given.smoke else 2_000, seed=1), given.peer),
        "\n## Size\n\nTexts made as above from Banking77, half of them copies.\n", *size(varied(texts, count, seed=2), given.peer),
        "\n## Banking77, as published\n", *banking77(train, test),
    ]  # fmt: skip
    text = "\n".join(parts) + "\n"
    sys.stdout.write(text)
    if given.write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
