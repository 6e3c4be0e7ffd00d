"""Real texts as streams: Banking77 and CLINC150 under the frozen base model and a head of their own, kept in a temporary folder.

Of each set a head is fitted on training rows; the rest is one pool of rows it never saw, from which a replicate draws its
calibration rows and its stream without putting back, so that nothing changes unless a change is asked for.
"""

from __future__ import annotations

import csv
import json
import pickle
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.backends.lora.base_model import BaseModel
from holdfast.backends.lora.head import Rows, regress
from holdfast.backends.lora.prefix_cache import FrozenPrefix
from holdfast.domain.ids import AdapterDigest
from holdfast.domain.windows import ReferenceWindow, WindowRows
from holdfast.settings import MINILM

FITTED, CALIBRATION = 2_000, 1_000
HEAD_C = 30.0
MAX_TOKENS = 128
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Site:
    """One set as one version answers it."""

    name: str
    fitted: WindowRows
    pool: WindowRows
    """Held-out rows of the traffic that the head was fitted for."""
    foreign: dict[str, WindowRows]
    """Kind of change to rows that take the place of those of the pool; `typos` and `truncation` row by row of it."""

    def draw(self, random: np.random.Generator, events: int) -> tuple[ReferenceWindow, NDArray[np.int64]]:
        """A reference, and which rows of the pool are the stream."""
        order = random.permutation(len(self.pool))
        if CALIBRATION + events > len(order):
            raise ValueError(f"{self.name}: {len(order)} rows in the pool are too few for {events} events")
        calibration = take(self.pool, order[:CALIBRATION])
        reference = ReferenceWindow(adapter_digest=AdapterDigest("bench"), fitted=self.fitted, calibration=calibration)
        return reference, order[CALIBRATION : CALIBRATION + events]


def take(rows: WindowRows, chosen: NDArray[np.int64]) -> WindowRows:
    """Some rows, in this order."""
    picked = chosen.tolist()
    return WindowRows(
        texts=tuple(rows.texts[i] for i in picked), predictions=tuple(rows.predictions[i] for i in picked),
        labels=tuple(rows.labels[i] for i in picked), confidences=rows.confidences[chosen], embeddings=rows.embeddings[chosen],
    )  # fmt: skip


def typo(text: str, random: np.random.Generator) -> str:
    """Two neighbouring letters change places in about one word of three."""
    words = text.split(" ")
    for i, word in enumerate(words):
        if len(word) > 3 and random.random() < 1 / 3:
            at = int(random.integers(0, len(word) - 1))
            words[i] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)


def banking77(data: Path) -> Site | None:
    """The head is fitted on half of the training rows, the rest is held out; None where the set is not."""
    folder = data / "banking77"
    if not (folder / "train.csv").exists():
        return None
    train, test = _csv(folder / "train.csv"), _csv(folder / "test.csv")
    order = np.random.default_rng(0).permutation(len(train))
    learned = [train[i] for i in order[:5_000]]
    return _site("Banking77", learned, [train[i] for i in order[5_000:]] + test, {})


def clinc150(data: Path) -> Site | None:
    """Out-of-scope rows, another domain (Banking77), typos and truncation beside; None where the set is not."""
    folder = data / "clinc150"
    if not (folder / "data_full.json").exists():
        return None
    parts = {name: [(text, label) for text, label in rows] for name, rows in json.loads((folder / "data_full.json").read_text()).items()}
    pool, random = parts["val"] + parts["test"], np.random.default_rng(0)
    foreign = {
        "out of scope": parts["oos_train"] + parts["oos_val"] + parts["oos_test"],
        "typos": [(typo(text, random), label) for text, label in pool],
        "truncation": [(text[: len(text) // 2], label) for text, label in pool],
    }
    if (data / "banking77" / "test.csv").exists():
        foreign["another domain"] = _csv(data / "banking77" / "test.csv")
    return _site("CLINC150", parts["train"], pool, foreign)


def domains(data: Path) -> dict[str, str]:
    """Intent of CLINC150 to its domain."""
    return {label: name for name, labels in json.loads((data / "clinc150" / "domains.json").read_text()).items() for label in labels}


def _csv(path: Path) -> Pairs:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def _site(name: str, train: Pairs, pool: Pairs, foreign: dict[str, Pairs]) -> Site:
    """Made once, and kept beside the embeddings."""
    folder = Path(tempfile.gettempdir()) / "holdfast-bench"
    kept = folder / f"{name}.pickle"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pickle.dumps(_made(name, train, pool, foreign)))
    site = pickle.loads(kept.read_bytes())
    assert isinstance(site, Site)
    return site


def _made(name: str, train: Pairs, pool: Pairs, foreign: dict[str, Pairs]) -> Site:
    labels = sorted({label for _, label in train})
    cache = Path(tempfile.gettempdir()) / "holdfast-bench" / "embeddings"
    frozen = FrozenPrefix(BaseModel.open("minilm", MINILM.path, MINILM.sha256), MAX_TOKENS, cache)
    targets = np.array([labels.index(label) for _, label in train], dtype=np.int64)
    head = regress(Rows(frozen.pooled([text for text, _ in train]), targets), len(labels), HEAD_C)

    def answered(pairs: Pairs) -> WindowRows:
        return _answered(pairs, labels, frozen.pooled([text for text, _ in pairs]), head.logits)

    chosen = np.sort(np.random.default_rng(1).permutation(len(train))[:FITTED])
    return Site(name, answered([train[i] for i in chosen]), answered(pool), {kind: answered(pairs) for kind, pairs in foreign.items()})


def _answered(
    pairs: Pairs, labels: Sequence[str], pooled: NDArray[np.float32], logits: Callable[[torch.Tensor], torch.Tensor]
) -> WindowRows:
    with torch.no_grad():
        shares = torch.softmax(logits(torch.from_numpy(pooled)), 1).numpy()
    return WindowRows(
        texts=tuple(text for text, _ in pairs), predictions=tuple(labels[i] for i in shares.argmax(1)),
        confidences=shares.max(1).astype(np.float32), embeddings=pooled, labels=tuple(label for _, label in pairs),
    )  # fmt: skip
