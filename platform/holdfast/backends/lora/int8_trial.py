"""Whether an adapter may answer in 8 bits: tried on its own sealed reference rows, and only where a loss was accepted beforehand.

The adapter answers exactly until the trial is over. What was measured is kept beside the compiled code, under the adapter's digest,
so that a trial is made once per machine and can be looked up afterwards.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from pyarrow import ArrowException

from holdfast.backends.lora.files import read_json, write_bytes
from holdfast.backends.lora.layouts import LoadedAdapter
from holdfast.domain.adapters import REFERENCE_NAME
from holdfast.domain.ids import AdapterDigest
from holdfast.errors import HoldfastError

MIN_ROWS, MAX_ROWS = 100, 500
"""Labelled reference rows that a trial needs, and uses at most."""
Ask = Callable[[LoadedAdapter, Sequence[str], bool], list[str]]
"""An adapter's answers to texts, in 8 bits or exact."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What was measured."""

    row_count: int
    exact: float
    """Share of right answers, exact."""
    int8: float
    changed: float
    """Share of answers that differ."""


class Int8Trials:
    """Trials of one engine, in a thread of their own.

    Args:
        accepted_loss: share of right answers that may be lost, 0..1.
        folder: where what was measured is kept.
    """

    def __init__(self, accepted_loss: float, folder: Path, ask: Ask) -> None:
        self._accepted_loss, self._folder, self._ask = accepted_loss, folder, ask
        self._accepted: frozenset[AdapterDigest] = frozenset()
        self._waiting: queue.SimpleQueue[tuple[LoadedAdapter, Path] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="int8-trials", daemon=True)
        self._thread.start()

    def accepted(self) -> frozenset[AdapterDigest]:
        """Adapters that may answer in 8 bits."""
        return self._accepted

    def begin(self, adapter: LoadedAdapter, folder: Path) -> None:
        """Try an adapter, later; its row must be memory of its own."""
        self._waiting.put((adapter, folder))

    def close(self) -> None:
        """End, after the trials that were begun."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (one := self._waiting.get()) is not None:
            try:
                self._try(*one)
            except (HoldfastError, OSError, ArrowException, KeyError) as error:
                _log.warning("%s goes on answering exactly, its trial in 8 bits failed: %s", one[0].digest, error)

    def _try(self, adapter: LoadedAdapter, folder: Path) -> None:
        file = self._folder / f"int8-{adapter.digest.rpartition(':')[2][:32]}.json"
        known = read_json(file)
        trial = Trial(**known) if isinstance(known, dict) else self._measure(adapter, folder)
        if trial is None:
            _log.info("%s goes on answering exactly: it has fewer than %d labelled reference rows", adapter.digest, MIN_ROWS)
            return
        write_bytes(file, json.dumps({name: getattr(trial, name) for name in trial.__slots__}).encode())
        fine = trial.exact - trial.int8 <= self._accepted_loss
        _log.info("%s %s in 8 bits: %s", adapter.digest, "answers" if fine else "does not answer", trial)
        if fine:
            self._accepted |= {adapter.digest}

    def _measure(self, adapter: LoadedAdapter, folder: Path) -> Trial | None:
        table = pq.read_table(folder / REFERENCE_NAME, columns=["part", "text", "label"]).to_pylist()
        rows = [row for row in table if row["part"] == "calibration" and row["label"] is not None][:MAX_ROWS]
        if len(rows) < MIN_ROWS:
            return None
        texts, labels = [row["text"] for row in rows], [row["label"] for row in rows]
        exact, small = (self._ask(adapter, texts, int8) for int8 in (False, True))
        return Trial(
            row_count=len(rows),
            exact=_share(a == b for a, b in zip(exact, labels, strict=True)),
            int8=_share(a == b for a, b in zip(small, labels, strict=True)),
            changed=_share(a != b for a, b in zip(exact, small, strict=True)),
        )


def _share(truths: Iterable[bool]) -> float:
    found = list(truths)
    return sum(found) / len(found)
