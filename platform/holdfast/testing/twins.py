"""Twins of the parts that train, register, report, ring and answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.answers import part_count
from holdfast.domain.captures import Prediction
from holdfast.domain.gates import Verdict
from holdfast.domain.ids import AdapterDigest, TaskName, base_asked
from holdfast.domain.retraining import TrainingPlan, TrainingProgress, TrainingResult
from holdfast.domain.windows import WindowRows
from holdfast.errors import AdapterRefused, DeadlinePassed, NotFound, PartUnavailable, TrainingFailed
from holdfast.ports import Answer, Question, RunFacts, Tier

HIDDEN = 8
"""Width of the embeddings that twins and builders make."""


class CannedTrainer:
    """Twin of a Trainer: hands over a planted result after so many looks at its progress.

    ``make`` is the planted result, or the function that makes it from the plan (builders.a_training_result fits). Without one,
    and for keys in ``failing``, the training fails.
    """

    def __init__(self, make: TrainingResult | Callable[[TrainingPlan], TrainingResult] | None = None, *, poll_count: int = 1) -> None:
        self.make = make
        self.poll_count = poll_count
        self.plans: dict[str, TrainingPlan] = {}
        self.failing: dict[str, str] = {}
        """Key to reason."""
        self.cancelled: list[str] = []
        self.down = False
        self._polls: dict[str, int] = {}

    def start(self, plan: TrainingPlan) -> None:
        """See the port."""
        if self.down:
            raise PartUnavailable(part="trainer", reason="it was taken down by the test")
        self.plans.setdefault(plan.key, plan)

    def progress(self, key: str) -> TrainingProgress:
        """See the port. Each look brings the end nearer."""
        if key not in self.plans:
            return TrainingProgress(state="absent")
        if self._reason(key) is not None:
            return TrainingProgress(state="failed", message=self._reason(key) or "")
        seen = self._polls[key] = self._polls.get(key, 0) + 1
        if seen >= self.poll_count:
            return TrainingProgress(state="done", share=1.0)
        return TrainingProgress(state="running", share=seen / self.poll_count)

    def result(self, key: str) -> TrainingResult:
        """See the port."""
        reason = self._reason(key)
        if reason is None and self._polls.get(key, 0) < self.poll_count:
            reason = "it is not done"
        if reason is not None or self.make is None:
            raise TrainingFailed(key=key, reason=reason, log="nowhere")
        return replace(self.make, key=key) if isinstance(self.make, TrainingResult) else self.make(self.plans[key])

    def cancel(self, key: str) -> None:
        """See the port."""
        self.cancelled.append(key)
        self.failing[key] = "cancelled"

    def _reason(self, key: str) -> str | None:
        if key not in self.plans:
            return "it was never started"
        return self.failing.get(key) or (None if self.make is not None else "no result was planted")


class MemoryRegistry:
    """Twin of the MLflow registry."""

    def __init__(self) -> None:
        self.facts: dict[str, RunFacts] = {}
        """Adapter digest to what was recorded."""
        self.verdicts: dict[str, Verdict] = {}
        self.down = False
        self._aliases: dict[str, dict[str, str]] = {}

    def record(self, facts: RunFacts, folder: Path) -> AdapterVersion:
        """See the port."""
        self._check()
        self.facts.setdefault(facts.version.digest, facts)
        numbers = [d for d, f in self.facts.items() if f.version.task == facts.version.task]
        number = numbers.index(facts.version.digest) + 1
        return replace(facts.version, run_id=f"run-{facts.version.digest[-8:]}", registry_version=str(number))

    def tag_verdict(self, version: AdapterVersion, verdict: Verdict) -> None:
        """See the port."""
        self._check()
        self.verdicts[version.digest] = verdict

    def aliases(self, task: TaskName) -> Mapping[str, str]:
        """See the port."""
        self._check()
        return dict(self._aliases.get(task, {}))

    def set_alias(self, task: TaskName, alias: str, registry_version: str | None) -> None:
        """See the port."""
        self._check()
        named = self._aliases.setdefault(task, {})
        if registry_version is None:
            named.pop(alias, None)
        else:
            named[alias] = registry_version

    def _check(self) -> None:
        if self.down:
            raise PartUnavailable(part="registry", reason="it was taken down by the test")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReportCall:
    """One call of a reporter."""

    task: TaskName
    reference: WindowRows
    current: WindowRows
    at: datetime
    figures: Mapping[str, float]


class ListReporter:
    """Twin of the Evidently reporter: remembers what it was asked."""

    def __init__(self, metrics: Mapping[str, float] | None = None) -> None:
        self.metrics = dict(metrics if metrics is not None else {"drifted_share": 0.0})
        self.calls: list[ReportCall] = []

    def report(
        self, task: TaskName, reference: WindowRows, current: WindowRows, *, at: datetime, figures: Mapping[str, float] | None = None
    ) -> tuple[Mapping[str, float], str]:
        """See the port."""
        self.calls.append(ReportCall(task=task, reference=reference, current=current, at=at, figures=dict(figures or {})))
        return dict(self.metrics), f"reports/{task}-{len(self.calls)}.html"


class ListDoorbell:
    """Twin of the Celery doorbell: remembers its rings."""

    def __init__(self) -> None:
        self.rings: list[tuple[str, ...]] = []

    def ring(self, job: str, *ids: str) -> None:
        """See the port."""
        self.rings.append((job, *ids))


Rule = Callable[[AdapterDigest, str], Prediction]


def first_word(digest: AdapterDigest, text: str) -> Prediction:
    """The rule of an EchoEngine that was given none: the label is the first word of the text."""
    return Prediction(label=(text.split() or ["nothing"])[0], confidence=0.9)


class EchoEngine:
    """Twin of an inference engine: labels by a planted rule, embeds by a hash of the text."""

    def __init__(self, rule: Rule = first_word) -> None:
        self.rule = rule
        self.refusing: dict[str, str] = {}
        """Digests that it will not load, with the reason."""
        self.folders: dict[AdapterDigest, Path] = {}
        self.broken: dict[str, str] = {}
        """Digests whose next proof fails, with the reason; loading one again mends it."""
        self.written: set[str] = set()
        """Digests whose weights were written to since their last proof."""
        self.max_tokens = 128
        self.pinned: frozenset[AdapterDigest] = frozenset()

    def load(self, digest: AdapterDigest, folder: Path) -> None:
        """See the port."""
        if digest in self.refusing:
            raise AdapterRefused(folder=folder, reason=self.refusing[digest])
        self.folders[digest] = folder
        self.broken.pop(digest, None)
        self.written.discard(digest)

    def prove(self, digest: AdapterDigest) -> None:
        """See the port."""
        if digest not in self.folders:
            raise NotFound(kind="adapter", name=digest)
        if digest in self.broken:
            raise AdapterRefused(folder=self.folders[digest], reason=self.broken[digest])
        self.written.discard(digest)

    def touched(self, digests: AbstractSet[AdapterDigest]) -> frozenset[AdapterDigest]:
        """See the port."""
        return frozenset(digest for digest in digests if digest in self.folders and digest in self.written)

    def unload(self, digest: AdapterDigest) -> None:
        """See the port."""
        self.folders.pop(digest, None)

    def loaded(self) -> frozenset[AdapterDigest]:
        """See the port."""
        return frozenset(self.folders)

    def answer(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        """See the port."""
        for question in questions:
            if question.digest not in self.folders and base_asked(question.digest) is None:
                raise NotFound(kind="adapter", name=question.digest)
        return tuple(self._answer(question) for question in questions)

    def _answer(self, question: Question) -> Answer:
        bare = base_asked(question.digest) is not None
        prediction = Prediction(label="", confidence=1.0) if bare else self.rule(question.digest, question.text)
        count = len(question.text.split()) + 2  # a word is a token, and two close the text
        parts = (prediction.confidence,) * part_count(prediction.label)
        embedding = embedding_of(question.text)
        return Answer(prediction=prediction, embedding=embedding, tokens=(count, min(count, self.max_tokens)), parts=parts)

    def resident(self) -> Mapping[AdapterDigest, Tier]:
        """See the port. It has room for all."""
        return dict.fromkeys(self.folders, "bank")

    def pin(self, digests: AbstractSet[AdapterDigest]) -> None:
        """See the port."""
        self.pinned = frozenset(digests)


class EchoWriter:
    """Twin of a generation engine: writes the words of the question back, one word a token.

    A word takes ``word_s`` seconds on a clock of its own that nobody waits for.
    """

    def __init__(self, *, word_s: float = 0.0) -> None:
        self.word_s = word_s
        self.refusing: dict[str, str] = {}
        self.folders: dict[AdapterDigest, Path] = {}

    def load(self, digest: AdapterDigest, folder: Path) -> None:
        """See the port."""
        if digest in self.refusing:
            raise AdapterRefused(folder=folder, reason=self.refusing[digest])
        self.folders[digest] = folder

    def unload(self, digest: AdapterDigest) -> None:
        """See the port."""
        self.folders.pop(digest, None)

    def loaded(self) -> frozenset[AdapterDigest]:
        """See the port."""
        return frozenset(self.folders)

    def write(self, questions: Sequence[Question], *, max_tokens: int, deadline_s: float) -> tuple[str, ...]:
        """See the port."""
        for question in questions:
            if question.digest not in self.folders:
                raise NotFound(kind="adapter", name=question.digest)
        words = [question.text.split()[:max_tokens] for question in questions]
        if sum(len(some) for some in words) * self.word_s > deadline_s:
            raise DeadlinePassed(seconds=deadline_s)
        return tuple(" ".join(some) for some in words)


def embedding_of(text: str, hidden: int = HIDDEN) -> tuple[float, ...]:
    """[hidden] float16 values that depend on the text alone; unit variance."""
    seed = int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8], "big")
    values = np.random.default_rng(seed).standard_normal(hidden).astype(np.float16)
    return tuple(float(v) for v in values)
