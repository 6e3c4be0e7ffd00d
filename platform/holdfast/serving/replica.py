"""What a replica does, without Ray: hold every wanted version, answer batches, and say what it holds.

Nobody tells a replica anything: it reads the assignments and follows. A version it cannot load never costs the ones it has.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from holdfast.domain.ids import AdapterDigest, base_asked
from holdfast.domain.routing import ReplicaReport, versions_wanted
from holdfast.errors import HoldfastError
from holdfast.ports import Answer, Clock, InferenceEngine, Question, UnitOfWork

log = logging.getLogger("holdfast.serving")
WireQuestion = tuple[str, str]
WireAnswer = tuple[str, float, bytes, tuple[int, int]] | str
UNLOAD_AFTER_S = 60.0
"""A version nobody wants stays for so long: longer than any request that may still name it."""
TRY_AGAIN_S = 5.0
"""A version that could not be loaded is tried again after so long."""
REPORT_AFTER_S = 3.0
"""An unchanged report is repeated after so long; the roll-out counts 15 s of silence as gone."""


class AdapterFolders(Protocol):
    """The part of the adapter store that a replica needs."""

    def folder(self, digest: AdapterDigest) -> Path: ...


class ReplicaWorker:
    """Follows the assignments in a thread of its own and answers in whatever thread it is asked."""

    def __init__(
        self,
        *,
        replica_id: str,
        unit_of_work: Callable[[], UnitOfWork],
        adapters: AdapterFolders,
        engine: InferenceEngine,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.replica_id = replica_id
        self._unit_of_work, self._adapters, self._engine, self._clock, self._monotonic = unit_of_work, adapters, engine, clock, monotonic
        self._generation = 0
        self._refused: dict[AdapterDigest, str] = {}
        self._try_at: dict[AdapterDigest, float] = {}
        self._wanted_at: dict[AdapterDigest, float] = {}
        self._reported: tuple[object, float] = (None, float("-inf"))
        self._loading = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.failing: str | None = None
        """Why the database could not be read or written at the last look."""

    def start(self, refresh_s: float) -> None:
        """Load what is wanted, report, then follow in the background."""
        self.refresh()
        self._thread = threading.Thread(target=self._follow, args=(refresh_s,), name="replica-follow", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    @property
    def follows(self) -> bool:
        """Whether the background thread lives."""
        return self._thread is not None and self._thread.is_alive()

    def refresh(self) -> None:
        """One look: read, load, unload, report. Never raises; with the database down it goes on with what it has."""
        try:
            with self._unit_of_work() as work:
                assignments = work.assignments.all()
        except Exception as error:  # whatever the database raises: answering must go on
            self._note(error)
            return
        self._generation = max((a.generation for a in assignments.values()), default=0)
        wanted = versions_wanted(assignments)
        champions = [a.champion for a in assignments.values()]
        for digest in sorted(wanted, key=lambda d: d not in champions):  # who answers now comes first
            self._hold(digest)
        self._let_go(wanted)
        self._report()

    def answer(self, questions: Sequence[WireQuestion]) -> list[WireAnswer]:
        """One answer per question, in order; a text where there is none, saying why."""
        bases = {d for d, _ in questions if base_asked(AdapterDigest(d)) is not None}
        missing = {AdapterDigest(d) for d, _ in questions if d not in bases} - self._engine.loaded()
        for digest in missing:
            self._hold(digest)
        loaded = self._engine.loaded() | bases if missing else None
        asked = [Question(digest=AdapterDigest(d), text=t) for d, t in questions if loaded is None or d in loaded]
        answers = iter(self._engine.answer(asked) if asked else ())
        return [
            _wire(next(answers)) if loaded is None or d in loaded else self._refused.get(AdapterDigest(d), "the version is not loaded")
            for d, _ in questions
        ]

    def _hold(self, digest: AdapterDigest) -> None:
        """Make sure that a version is loaded, or know why not."""
        self._wanted_at[digest] = self._monotonic()
        if digest in self._engine.loaded() or self._try_at.get(digest, 0.0) > self._monotonic():
            return
        with self._loading:
            if digest in self._engine.loaded():
                return
            try:
                self._engine.load(digest, self._adapters.folder(digest))
            except Exception as error:  # a hostile or broken adapter may fail in any way; what is loaded must go on answering
                self._refused[digest] = error.message if isinstance(error, HoldfastError) else f"{type(error).__name__}: {error}"[:300]
                self._try_at[digest] = self._monotonic() + TRY_AGAIN_S
                log.warning("%s cannot be loaded: %s", digest, self._refused[digest])
                return
            self._refused.pop(digest, None)
            self._try_at.pop(digest, None)
            log.info("%s is loaded", digest)

    def _let_go(self, wanted: frozenset[AdapterDigest]) -> None:
        now = self._monotonic()
        for digest in self._engine.loaded() - wanted:
            if now - self._wanted_at.setdefault(digest, now) > UNLOAD_AFTER_S:
                self._engine.unload(digest)
                self._wanted_at.pop(digest, None)
                log.info("%s is let go", digest)
        for digest in set(self._refused) - wanted:
            del self._refused[digest]
            self._try_at.pop(digest, None)

    def _report(self) -> None:
        ready = tuple(sorted(self._engine.loaded()))
        refused = {str(d): r for d, r in self._refused.items() if d not in ready}
        now, (last, last_at) = self._monotonic(), self._reported
        state = (ready, tuple(sorted(refused.items())), self._generation)
        if state == last and now - last_at < REPORT_AFTER_S:
            return
        report = ReplicaReport(
            replica_id=self.replica_id, ready=ready, refused=refused, generation=self._generation, reported_at=self._clock()
        )
        try:
            with self._unit_of_work() as work:
                work.replicas.report(report)
                work.commit()
        except Exception as error:  # as above
            self._note(error)
            return
        self._reported, self.failing = (state, now), None

    def _note(self, error: Exception) -> None:
        if self.failing is None:
            log.warning("the database does not answer; going on with what is loaded: %s", error)
        self.failing = f"{type(error).__name__}: {error}"[:300]

    def _follow(self, refresh_s: float) -> None:
        while not self._stop.wait(refresh_s):
            self.refresh()


def _wire(answer: Answer) -> WireAnswer:
    embedding = np.asarray(answer.embedding, dtype="<f2").tobytes()
    return (answer.prediction.label, float(answer.prediction.confidence), embedding, answer.tokens)
