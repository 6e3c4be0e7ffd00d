"""What the frozen base says of a text, computed once: pooled vectors on disk, hidden states of the prefix in memory."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.backends.lora.base_model import BaseModel, clean_text
from holdfast.backends.lora.encoder import Packing, embed_tokens, pool, run_layers

BATCH_ROWS = 32
HIDDEN_BYTES = 1 << 30
"""Hidden states kept in memory per process, about: a million tokens of 384 half-precision values are 0.8 GB."""
Tick = Callable[[float], None]
_log = logging.getLogger(__name__)


def by_length(lengths: Sequence[int], rows: int = BATCH_ROWS) -> Iterator[list[int]]:
    """Indices in batches of rows of similar length, longest first, so that attention pads little."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for start in range(0, len(order), rows):
        yield order[start : start + rows]


class FrozenPrefix:
    """Outputs of one frozen base at one ``max_tokens``. Not shared between threads."""

    def __init__(self, base: BaseModel, max_tokens: int, cache_folder: Path | None) -> None:
        self.base, self.max_tokens = base, max_tokens
        self._store = None if cache_folder is None else PooledStore(cache_folder, base.digest, base.hidden, max_tokens)
        self._pooled: dict[bytes, NDArray[np.float32]] = {}
        self._hidden: OrderedDict[tuple[int, bytes], Tensor] = OrderedDict()
        self._hidden_bytes = 0

    def pooled(self, texts: Sequence[str], tick: Tick = lambda share: None) -> NDArray[np.float32]:
        """Mean-pooled output of the whole base: [texts, hidden]. ``tick`` hears the share that is done."""
        keys = [_key(text) for text in texts]
        self._recall([key for key in dict.fromkeys(keys) if key not in self._pooled])
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._pooled}
        self._compute(list(missing), list(missing.values()), tick)
        if not keys:
            return np.zeros((0, self.base.hidden), np.float32)
        return np.stack([self._pooled[key] for key in keys])

    def hidden(self, texts: Sequence[str], layer_count: int, tick: Tick = lambda share: None) -> list[Tensor]:
        """Per text the hidden states after the first ``layer_count`` layers: [tokens, hidden], float16 (half the memory)."""
        keys = [(layer_count, _key(text)) for text in texts]
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._hidden}
        made: dict[tuple[int, bytes], Tensor] = {}
        ids = self.base.token_ids(list(missing.values()), self.max_tokens)
        names = list(missing)
        for done, batch in enumerate(by_length([len(one) for one in ids])):
            x, packing = self._run([ids[i] for i in batch], layer_count)
            for i, states in zip(batch, torch.split(x.half(), packing.lengths.tolist()), strict=True):
                made[names[i]] = states.clone()
            tick((done + 1) * BATCH_ROWS / max(len(ids), 1))
        found = [made[key] if key in made else self._hidden[key] for key in keys]
        self._keep(made)
        return found

    def _keep(self, made: dict[tuple[int, bytes], Tensor]) -> None:
        for key, states in made.items():
            self._hidden[key] = states
            self._hidden_bytes += states.nbytes
        while self._hidden_bytes > HIDDEN_BYTES:
            self._hidden_bytes -= self._hidden.popitem(last=False)[1].nbytes

    def _run(self, ids: Sequence[Sequence[int]], layer_count: int) -> tuple[Tensor, Packing]:
        packing = Packing.of([len(one) for one in ids])
        with torch.no_grad():
            return run_layers(self.base, embed_tokens(self.base, ids, packing), packing, range(layer_count)), packing

    def _compute(self, keys: Sequence[bytes], texts: Sequence[str], tick: Tick) -> None:
        for start in range(0, len(texts), 1024):  # stored as it goes: an interrupted training does not begin again
            part = slice(start, start + 1024)
            ids = self.base.token_ids(texts[part], self.max_tokens)
            fresh: dict[bytes, NDArray[np.float32]] = {}
            for batch in by_length([len(one) for one in ids]):
                x, packing = self._run([ids[i] for i in batch], len(self.base.layers))
                rows = pool(x, packing).numpy()
                fresh.update({keys[start + i]: row for i, row in zip(batch, rows, strict=True)})
            self._pooled.update(fresh)
            if self._store is not None:
                self._store.add(fresh)
            tick(min(1.0, (start + 1024) / len(texts)))

    def _recall(self, keys: Sequence[bytes]) -> None:
        if self._store is not None and keys:
            self._pooled.update(self._store.find(keys))


class PooledStore:
    """Pooled vectors on disk, by text, one SQLite file per base and ``max_tokens``. A cache: what it cannot do, it does not do."""

    def __init__(self, folder: Path, digest: str, hidden: int, max_tokens: int) -> None:
        self._path = folder / f"pooled-{digest[:16]}-{max_tokens}.sqlite"
        self._hidden = hidden
        self._usable = True

    def find(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Those that are stored."""
        found: dict[bytes, NDArray[np.float32]] = {}
        for start in range(0, len(keys), 500):
            some = keys[start : start + 500]
            marks = ",".join("?" * len(some))
            for key, raw in self._read(f"SELECT key, vector FROM pooled WHERE key IN ({marks})", some):
                if len(raw) == 4 * self._hidden:
                    found[key] = np.frombuffer(raw, np.float32)
        return found

    def add(self, fresh: dict[bytes, NDArray[np.float32]]) -> None:
        """Store them; another process that stored the same key first is right too."""
        rows = [(key, row.astype(np.float32).tobytes()) for key, row in fresh.items()]
        if not self._usable:
            return
        try:
            with closing(self._connect()) as link, link:
                link.executemany("INSERT OR IGNORE INTO pooled VALUES (?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def _read(self, query: str, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        if not self._usable:
            return []
        try:
            with closing(self._connect()) as link:
                return link.execute(query, list(keys)).fetchall()
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
            return []

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        link = sqlite3.connect(self._path, timeout=10)
        link.execute("PRAGMA journal_mode=WAL")
        link.execute("PRAGMA synchronous=NORMAL")
        link.execute("CREATE TABLE IF NOT EXISTS pooled (key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")
        return link

    def _give_up(self, error: Exception) -> None:
        self._usable = False
        _log.warning("the embedding cache %s is not used: %s", self._path, error)


def _key(text: str) -> bytes:
    return hashlib.sha256(clean_text(text).encode()).digest()
