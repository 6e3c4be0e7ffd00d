"""What a replica does, without Ray: hold every wanted version, answer batches, and say what it holds.

Nobody tells a replica anything: it reads the assignments and follows. A version it cannot load never costs the ones it has. Every
version it holds is proved by its fingerprint when it is loaded, again on a schedule, and before the next answer whenever its
weights were written to; one that fails answers no more, is loaded anew from its verified files, and is told of.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np

from holdfast.domain.ids import AdapterDigest, base_asked
from holdfast.domain.routing import ReplicaReport, versions_routed, versions_wanted
from holdfast.errors import HoldfastError, NotFound
from holdfast.ports import Answer, Clock, InferenceEngine, Question, UnitOfWork

log = logging.getLogger("holdfast.serving")
WireQuestion = tuple[str, str]
WireAnswer = tuple[str, float, bytes, tuple[int, int], tuple[float, ...]] | str
WireReply = tuple[str, list[WireAnswer]]
"""Ray's id of the replica, and its answers."""
UNLOAD_AFTER_S = 60.0
"""A version nobody wants stays for so long: longer than any request that may still name it."""
TRY_AGAIN_S = 5.0
"""A version that could not be loaded is tried again after so long."""
REPORT_AFTER_S = 3.0
"""An unchanged report is repeated after so long; the roll-out counts 15 s of silence as gone."""

PROVE_S = 60.0
"""Seconds between two proofs of a version."""
TOLD_FOR_S = 60.0
"""A failed proof stands in the reports for so long: the loop looks every few seconds and must not miss it."""


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
        prove_s: float = PROVE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.replica_id = replica_id
        self._unit_of_work, self._adapters, self._engine, self._clock, self._monotonic = unit_of_work, adapters, engine, clock, monotonic
        self._prove_s = prove_s
        self._generation = 0
        self._proved: dict[AdapterDigest, tuple[float, datetime]] = {}
        self._lapsed: dict[AdapterDigest, tuple[str, float]] = {}
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

    def ailing(self) -> str | None:
        """Why another replica should take this one's place; None while it is of use."""
        if not self.follows:
            return "the following thread ended"
        if self._lapsed and not self._engine.loaded():
            return f"no version is left that passes its proof: {next(iter(self._lapsed.values()))[0]}"
        return None

    def refresh(self) -> None:
        """One look: prove, read, load, unload, report. Never raises; with the database down it goes on with what it has."""
        self._prove_oldest()
        try:
            with self._unit_of_work() as work:
                assignments, table = work.assignments.all(), work.assignments.table()
        except Exception as error:  # whatever the database raises: answering must go on
            self._note(error)
            return
        self._generation = max((a.generation for a in assignments.values()), default=0)
        wanted, routed = versions_wanted(assignments, table), versions_routed(assignments, table)
        self._engine.pin(routed)  # many who ask for versions by number must not send a task's own traffic to the disk
        for digest in sorted(wanted, key=lambda d: d not in routed):  # who answers now comes first
            self._hold(digest)
        self._let_go(wanted)
        self._report()

    def answer(self, questions: Sequence[WireQuestion]) -> list[WireAnswer]:
        """One answer per question, in order; a text where there is none, saying why."""
        bases = {AdapterDigest(d) for d, _ in questions if base_asked(AdapterDigest(d)) is not None}
        named = {AdapterDigest(d) for d, _ in questions} - bases
        for digest in named - self._engine.loaded():
            self._hold(digest)
        for digest in self._engine.touched(named):
            self._prove(digest)
        ready, lapses = self._engine.loaded() | bases, dict(self._lapsed)
        asked = [Question(digest=AdapterDigest(d), text=t) for d, t in questions if d in ready]
        answers = iter([_wire(one) for one in self._engine.answer(asked)] if asked else ())
        found: list[WireAnswer] = [next(answers) if d in ready else "the version is not loaded" for d, _ in questions]
        return [self._passed(AdapterDigest(d), one, lapses) for (d, _), one in zip(questions, found, strict=True)]

    def _passed(self, digest: AdapterDigest, answer: WireAnswer, lapses: Mapping[AdapterDigest, tuple[str, float]]) -> WireAnswer:
        """The answer, unless the version is refused or failed its proof while it answered: then it does not leave."""
        lapse = self._lapsed.get(digest)
        if lapse is not None and lapse is not lapses.get(digest):
            return lapse[0]
        return self._refused.get(digest, answer)

    def _hold(self, digest: AdapterDigest) -> None:
        """Make sure that a version is loaded, or know why not."""
        self._wanted_at[digest] = self._monotonic()
        if digest in self._engine.loaded() or self._try_at.get(digest, 0.0) > self._monotonic():
            return
        with self._loading:
            if digest not in self._engine.loaded():
                self._load(digest)

    def _load(self, digest: AdapterDigest) -> None:
        try:
            self._engine.load(digest, self._adapters.folder(digest))
        except Exception as error:  # a hostile or broken adapter may fail in any way; what is loaded must go on answering
            self._refused[digest] = _reason(error)
            self._try_at[digest] = self._monotonic() + TRY_AGAIN_S
            log.warning("%s cannot be loaded: %s", digest, self._refused[digest])
            return
        self._proved[digest] = (self._monotonic(), self._clock())
        self._refused.pop(digest, None)
        self._try_at.pop(digest, None)
        log.info("%s is loaded and proved", digest)

    def _prove_oldest(self) -> None:
        """Prove the one version whose last proof is the longest ago, if that is long enough."""
        loaded = self._engine.loaded()
        if not loaded:
            return
        digest = min(loaded, key=lambda d: self._proved.get(d, (0.0, None))[0])
        if digest not in self._proved or self._monotonic() - self._proved[digest][0] >= self._prove_s:
            self._prove(digest)

    def _prove(self, digest: AdapterDigest) -> None:
        """Prove a loaded version; one that fails is taken out and loaded anew from its verified files."""
        with self._loading:
            try:
                self._engine.prove(digest)
            except NotFound:
                return  # let go meanwhile
            except Exception as error:  # a proof that cannot be made is no proof
                self._refused[digest] = _reason(error)
                self._engine.unload(digest)
                self._proved.pop(digest, None)
                self._lapsed[digest] = (self._refused[digest], self._monotonic() + TOLD_FOR_S)
                log.error("%s no longer passes its proof: %s", digest, self._refused[digest])
                self._load(digest)
                return
            self._proved[digest] = (self._monotonic(), self._clock())

    def _let_go(self, wanted: frozenset[AdapterDigest]) -> None:
        now = self._monotonic()
        for digest in self._engine.loaded() - wanted:
            if now - self._wanted_at.setdefault(digest, now) > UNLOAD_AFTER_S:
                self._engine.unload(digest)
                self._wanted_at.pop(digest, None)
                self._proved.pop(digest, None)
                log.info("%s is let go", digest)
        for digest in set(self._refused) - wanted:
            del self._refused[digest]
            self._try_at.pop(digest, None)
        for digest in set(self._lapsed) - wanted:
            del self._lapsed[digest]

    def _report(self) -> None:
        ready = tuple(sorted(self._engine.loaded()))
        refused = {str(d): r for d, r in self._refused.items() if d not in ready}
        now, (last, last_at) = self._monotonic(), self._reported
        lapsed = {str(d): reason for d, (reason, until) in self._lapsed.items() if until > now}
        state = (ready, tuple(sorted(refused.items())), tuple(sorted(lapsed.items())), self._generation)
        if state == last and now - last_at < REPORT_AFTER_S:
            return
        report = ReplicaReport(
            replica_id=self.replica_id, ready=ready, refused=refused, lapsed=lapsed,
            proved_at={str(d): at for d, (_, at) in list(self._proved.items()) if d in ready},
            generation=self._generation, reported_at=self._clock(),
        )  # fmt: skip
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


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, HoldfastError) else f"{type(error).__name__}: {error}"[:300]


def _wire(answer: Answer) -> WireAnswer:
    embedding = np.asarray(answer.embedding, dtype="<f2").tobytes()
    return (answer.prediction.label, float(answer.prediction.confidence), embedding, answer.tokens, answer.parts)
