"""Worlds for planted incidents: real texts with the real base model's embeddings and a head's answers, calm and in planted forms.

Texts are changed here, and only here, by this file's own code; nothing of it is shared with the diagnosis. Embeddings are computed once
and kept in the cache folder by text.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import from_numpy

from holdfast.backends.lora.base_model import BaseModel, use_threads
from holdfast.backends.lora.head import Rows, fit_head
from holdfast.backends.lora.prefix_cache import FrozenPrefix
from holdfast.settings import MINILM

DATA = Path("/work/shared/data")
FITTED, VALIDATION, CALIBRATION, CALM, CHANGED = 1_000, 200, 400, 900, 260
TOPIC_ROWS = 90
GERMAN = ("wo ist meine {}", "ich habe meine {} verloren", "warum wurde die {} abgelehnt", "wie kann ich die {} im ausland benutzen",
          "bitte sperren sie meine {} sofort", "wann kommt die neue {} bei mir an")  # fmt: skip
FRENCH = ("où se trouve ma {}", "je voudrais savoir pourquoi la {} ne marche pas", "comment puis-je changer ma {}",
          "est-ce que vous pouvez annuler la {}", "ma {} a disparu depuis hier soir")  # fmt: skip
SPANISH = ("dónde está mi {}", "quiero cambiar la {} de mi cuenta", "por qué no funciona mi {}", "no puedo encontrar la {} que pedí",
           "necesito ayuda con mi {} por favor")  # fmt: skip
NOUNS = {
    "de": ("karte", "überweisung", "rechnung", "bestellung", "reservierung", "buchung", "einstellung"),
    "fr": ("carte", "facture", "commande", "réservation", "demande", "livraison"),
    "es": ("tarjeta", "factura", "transferencia", "reserva", "cuenta", "lista"),
}
FOREIGN = {"de": GERMAN, "fr": FRENCH, "es": SPANISH}
Change = Callable[[str, np.random.Generator], str]


def _cut(limit: int) -> Change:
    return lambda text, _: text[:limit]


def _misread(text: str, random: np.random.Generator) -> str:
    """UTF-8 read as Windows-1252: accents on a vowel or two, and every apostrophe curled."""
    accented = text.replace("'", "’")
    places = [i for i, c in enumerate(accented) if c in "aeou"]
    for place in random.choice(places, min(2, len(places)), replace=False) if places else []:
        accented = accented[:place] + {"a": "à", "e": "é", "o": "ö", "u": "ü"}[accented[place]] + accented[place + 1 :]
    return accented.encode().decode("cp1252", errors="replace")


def _foreign(text: str, random: np.random.Generator) -> str:
    tongue = str(random.choice(sorted(FOREIGN)))
    return str(random.choice(FOREIGN[tongue])).format(random.choice(NOUNS[tongue])) + str(random.choice(["", "?", " !"]))


def _wrapped(text: str, random: np.random.Generator) -> str:
    if random.random() < 0.5:
        return json.dumps({"id": int(random.integers(1_000_000)), "body": text})
    return f'<p class="msg">{text}</p><br/>'


def _coined(new: dict[str, str]) -> Change:
    def change(text: str, _: np.random.Generator) -> str:
        return " ".join(new.get(word.strip("?.,!").lower(), word) for word in text.split())

    return change


def coinages(texts: Sequence[str]) -> dict[str, str]:
    """A new word for each of the forty most common long words of a world: products renamed, jargon of another team."""
    counted: dict[str, int] = {}
    for text in texts:
        for word in {w.strip("?.,!").lower() for w in text.split()}:
            if len(word) >= 4 and word.isalpha():
                counted[word] = counted.get(word, 0) + 1
    top = sorted(counted, key=lambda w: (-counted[w], w))[:40]
    random = np.random.default_rng(7)
    parts = ("zor", "plax", "quim", "vent", "rilo", "dax", "mybo", "trel")
    return {word: "".join(random.choice(parts, 2)) + str(word[-1]) for word in top}


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows in columns of one length."""

    texts: tuple[str, ...]
    truth: tuple[str, ...]
    said: tuple[str, ...]
    sure: NDArray[np.float32]
    vectors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class World:
    """One task and what may happen to it."""

    name: str
    fitted: Pool
    calibration: Pool
    calm: Pool
    changed: dict[str, Pool]
    """Form of planted text to the same rows of traffic in that form."""
    topics: dict[str, Pool]


def _answers(head: object, vectors: NDArray[np.float32], names: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:
    logits = head.logits(from_numpy(vectors)).double().softmax(-1).detach().numpy()  # type: ignore[attr-defined]
    return [names[i] for i in logits.argmax(1)], logits.max(1).astype(np.float32)


def _texts(name: str, random: np.random.Generator) -> tuple[list[tuple[str, str]], dict[str, list[tuple[str, str]]]]:
    """Rows (text, label) of the known labels in random order, and those of each topic the version is not taught."""
    clinc, domains = json.loads((DATA / "clinc150/data_full.json").read_text()), json.loads((DATA / "clinc150/domains.json").read_text())
    rows = [(text, label) for part in ("train", "val", "test") for text, label in clinc[part]]
    by_domain = {domain: [row for row in rows if row[1] in set(labels)] for domain, labels in domains.items()}
    if name == "clinc150":
        known = [row for domain in ("home", "work", "utility", "auto_and_commute") for row in by_domain[domain]]
        topics = {d: by_domain[d] for d in ("travel", "kitchen_and_dining", "banking", "credit_cards")}
    else:
        with (DATA / "banking77/train.csv").open() as file:
            bank = [(row["text"], row["category"]) for row in csv.DictReader(file)]
        names = sorted({label for _, label in bank})
        fresh = set(names[::6])
        known = [row for row in bank if row[1] not in fresh]
        near = {label: [row for row in bank if row[1] == label] for label in sorted(fresh)[:4]}
        topics = near | {d: by_domain[d] for d in ("travel", "kitchen_and_dining", "work", "home")}
    # a topic is a few kinds of request, not a whole domain: three labels of it
    for topic, some in topics.items():
        kept = sorted({label for _, label in some})[:3]
        topics[topic] = [row for row in some if row[1] in kept]
    order = random.permutation(len(known))
    return [known[i] for i in order], topics


def world(name: str, cache: Path) -> World:
    """The world ``banking77`` or ``clinc150``; the same each time."""
    random = np.random.default_rng(11)
    use_threads(1)
    known, topics = _texts(name, random)
    frozen = FrozenPrefix(BaseModel.open("minilm", MINILM.path, MINILM.sha256), 128, cache)
    ends = np.cumsum([0, FITTED, VALIDATION, CALIBRATION, CALM])
    parts = [known[a:b] for a, b in itertools.pairwise(ends)]
    names = sorted({label for _, label in parts[0]})
    place = {label: i for i, label in enumerate(names)}
    parts = [[row for row in part if row[1] in place] for part in parts]
    vectors = [frozen.pooled([t for t, _ in part]) for part in parts]
    rows = [Rows(v, np.array([place[y] for _, y in p])) for v, p in zip(vectors[:2], parts[:2], strict=True)]
    head = fit_head(rows[0], rows[1], len(names)).on_all

    def pool(some: Sequence[tuple[str, str]]) -> Pool:
        found = frozen.pooled([t for t, _ in some])
        said, sure = _answers(head, found, names)
        return Pool(tuple(t for t, _ in some), tuple(y for _, y in some), tuple(said), sure, found)

    coin = coinages([t for t, _ in parts[0]])
    forms: dict[str, Change] = {
        "empty": lambda t, r: str(r.choice(["", " ", "\n"])), "cut at 16": _cut(16), "cut at 24": _cut(24), "cut at 32": _cut(32),
        "misread": _misread, "foreign": _foreign, "wrapped": _wrapped, "coined": _coined(coin),
    }  # fmt: skip
    base = parts[3][:CHANGED]
    changed = {form: pool([(change(t, random), y) for t, y in base]) for form, change in forms.items()}
    return World(name, pool(parts[0]), pool(parts[2]), pool(parts[3]), changed, {k: pool(v[:TOPIC_ROWS]) for k, v in topics.items()})
