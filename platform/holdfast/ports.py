"""The sockets: what the house needs from outside, as Protocols.

A port stands here only if it has an in-memory twin in ``holdfast.testing`` and both pass one contract suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from holdfast.domain.adapters import AdapterVersion, Fingerprint, Manifest
from holdfast.domain.alerts import Alert
from holdfast.domain.captures import Capture, Label, LabelledCapture, Prediction
from holdfast.domain.datasets import DatasetSnapshot, SnapshotRow
from holdfast.domain.drift import DriftReport
from holdfast.domain.gates import Verdict
from holdfast.domain.ids import AdapterDigest, AlertId, CaptureId, PromotionId, RetrainingId, ReviewId, SnapshotDigest, TaskName, VerdictId
from holdfast.domain.ledger import LedgerEntry
from holdfast.domain.monitors import MonitorSet
from holdfast.domain.producers import Producer
from holdfast.domain.promotions import Promotion
from holdfast.domain.retraining import Retraining, TrainedRung, TrainingPlan, TrainingProgress, TrainingResult
from holdfast.domain.review import LabelRequest
from holdfast.domain.routing import Assignment, ReplicaReport, Route, RoutingTable
from holdfast.domain.tasks import TaskContract
from holdfast.domain.windows import ReferenceWindow, WindowRows

Clock = Callable[[], datetime]
"""Gives the present instant, aware, in UTC."""


class Contracts(Protocol):
    """Task contracts, the newest of each task."""

    def put(self, contract: TaskContract, at: datetime) -> None: ...
    def get(self, task: TaskName) -> TaskContract:
        """Raises NotFound."""
        ...

    def all(self) -> tuple[TaskContract, ...]:
        """In order of name."""
        ...


class Versions(Protocol):
    """Adapter versions."""

    def put(self, version: AdapterVersion) -> None:
        """Insert, or replace the version of the same digest."""
        ...

    def get(self, digest: AdapterDigest) -> AdapterVersion:
        """Raises NotFound."""
        ...

    def find(self, digest: AdapterDigest) -> AdapterVersion | None: ...
    def of_task(self, task: TaskName) -> tuple[AdapterVersion, ...]:
        """In order of number."""
        ...

    def all(self) -> tuple[AdapterVersion, ...]:
        """In order of task and number."""
        ...


class Assignments(Protocol):
    """Who is champion: the intent (assignments) and what the data plane follows (routes)."""

    def get(self, task: TaskName) -> Assignment | None: ...
    def all(self) -> Mapping[str, Assignment]: ...
    def next_generation(self) -> int:
        """A number above every generation given so far, over all tasks."""
        ...

    def put(self, assignment: Assignment, *, expected_generation: int | None) -> None:
        """Write the intent. ``expected_generation`` is that of the assignment it replaces; None when there is none.

        Raises StaleGeneration.
        """
        ...

    def mark_stuck(self, task: TaskName, generation: int, reason: str | None) -> None:
        """Note why a generation is not live yet; a no-op when the assignment has moved on."""
        ...

    def publish(self, route: Route) -> None:
        """Make the data plane follow. An older generation than the published one of the task is ignored."""
        ...

    def table(self) -> RoutingTable: ...


class Replicas(Protocol):
    """What replicas say of themselves."""

    def report(self, report: ReplicaReport) -> None: ...
    def live(self, since: datetime) -> tuple[ReplicaReport, ...]:
        """The newest report of every replica that reported at or after ``since``."""
        ...


class Monitors(Protocol):
    """Monitor states."""

    def get(self, task: TaskName, digest: AdapterDigest) -> MonitorSet | None: ...
    def put(self, monitors: MonitorSet) -> None:
        """Save over ``version`` and grow it by one; version 0 inserts. Raises Conflict when another save came first."""
        ...


class Reports(Protocol):
    """Drift reports."""

    def put(self, report: DriftReport) -> None: ...
    def of_task(self, task: TaskName, limit: int = 50) -> tuple[DriftReport, ...]:
        """Newest first."""
        ...


class Alerts(Protocol):
    """Alerts; at most one open or acknowledged alert per fingerprint, by constraint."""

    def put(self, alert: Alert) -> None: ...
    def get(self, alert_id: AlertId) -> Alert:
        """Raises NotFound."""
        ...

    def of_task(self, task: TaskName) -> tuple[Alert, ...]:
        """Newest first."""
        ...

    def unresolved(self) -> tuple[Alert, ...]:
        """Every open or acknowledged alert, oldest first."""
        ...


class Retrainings(Protocol):
    """Retrainings: rows that are jobs, with lease, fence and attempts."""

    def request(self, retraining: Retraining) -> Retraining:
        """Insert it, or return the stored one of the same id: asking twice is asking once."""
        ...

    def get(self, retraining_id: RetrainingId) -> Retraining:
        """Raises NotFound."""
        ...

    def of_task(self, task: TaskName) -> tuple[Retraining, ...]:
        """Newest first."""
        ...

    def due(self, now: datetime) -> tuple[Retraining, ...]:
        """Not ended, due, and under no living lease; oldest first."""
        ...

    def claim(self, retraining_id: RetrainingId, *, owner: str, now: datetime, lease_s: float) -> Retraining | None:
        """Take the lease and raise the fence; None when it has ended, is not due, or another living lease holds it."""
        ...

    def save(self, retraining: Retraining) -> None:
        """Write under its fence, whatever the lease. Raises LeaseLost when the stored fence is higher."""
        ...


class Snapshots(Protocol):
    """Records of dataset snapshots."""

    def put(self, snapshot: DatasetSnapshot) -> None: ...
    def get(self, digest: SnapshotDigest) -> DatasetSnapshot:
        """Raises NotFound."""
        ...

    def of_task(self, task: TaskName) -> tuple[DatasetSnapshot, ...]:
        """Newest first."""
        ...


class Verdicts(Protocol):
    """Verdicts."""

    def put(self, verdict: Verdict) -> None: ...
    def get(self, verdict_id: VerdictId) -> Verdict:
        """Raises NotFound."""
        ...

    def newest_of(self, digest: AdapterDigest) -> Verdict | None: ...


class Promotions(Protocol):
    """Promotions and rollbacks."""

    def put(self, promotion: Promotion) -> None: ...
    def get(self, promotion_id: PromotionId) -> Promotion:
        """Raises NotFound."""
        ...

    def of_task(self, task: TaskName) -> tuple[Promotion, ...]:
        """Newest first."""
        ...


class Reviews(Protocol):
    """Label requests; at most one open one per task, by constraint."""

    def put(self, request: LabelRequest) -> None:
        """Save over ``version`` and grow it by one; version 0 inserts. Raises Conflict when another save or open request came first."""
        ...

    def get(self, request_id: ReviewId) -> LabelRequest:
        """Raises NotFound."""
        ...

    def open_of(self, task: TaskName) -> LabelRequest | None: ...
    def of_task(self, task: TaskName, limit: int = 20) -> tuple[LabelRequest, ...]:
        """Newest first."""
        ...


class Ledger(Protocol):
    """The hash-chained ledger."""

    def append(self, *, at: datetime, kind: str, task: str, actor: str, body: Mapping[str, object]) -> LedgerEntry:
        """Chain one entry to the newest, in this transaction."""
        ...

    def entries(self, *, after: int = 0, limit: int = 1_000) -> tuple[LedgerEntry, ...]:
        """In order of seq."""
        ...

    def count(self) -> int: ...


class Keys(Protocol):
    """API keys, by the SHA-256 of the key; the key itself is stored nowhere here."""

    def add(self, *, name: str, key_hash: str, created_at: datetime) -> None:
        """Raises AlreadyExists on a name in use."""
        ...

    def revoke(self, name: str) -> None:
        """Raises NotFound."""
        ...

    def valid(self) -> Mapping[str, str]:
        """Hash to name, of every key that is not revoked."""
        ...


class UnitOfWork(Protocol):
    """One transaction. Leaving the block without ``commit`` changes nothing."""

    contracts: Contracts
    versions: Versions
    assignments: Assignments
    replicas: Replicas
    monitors: Monitors
    reports: Reports
    alerts: Alerts
    retrainings: Retrainings
    snapshots: Snapshots
    verdicts: Verdicts
    promotions: Promotions
    reviews: Reviews
    ledger: Ledger
    keys: Keys

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def commit(self) -> None: ...


class CaptureLog(Protocol):
    """Captures and labels, in the order they came. Each call is its own transaction."""

    def append(self, captures: Sequence[Capture]) -> int:
        """Store those whose id is new; the number stored. All or none. A capture is durable when this returns."""
        ...

    def label(self, labels: Sequence[Label]) -> int:
        """Store labels; the number that was new (same capture, source and value again is not). All or none.

        Raises NotFound (kind `capture`) at the first label whose capture is unknown for that task.
        """
        ...

    def tasks_of(self, ids: Sequence[CaptureId]) -> Mapping[CaptureId, TaskName]:
        """The task of every capture that is stored; what is not stored is absent."""
        ...

    def after(self, task: TaskName, seq: int, limit: int = 1_000) -> tuple[Capture, ...]:
        """Captures of a task with a higher seq, in order."""
        ...

    def labelled_after(self, task: TaskName, label_seq: int, limit: int = 1_000) -> tuple[LabelledCapture, ...]:
        """Captures whose label has a higher label seq, in the order the labels came."""
        ...

    def labelled_since(self, task: TaskName, capture_seq: int) -> tuple[LabelledCapture, ...]:
        """Captures with a seq at or above ``capture_seq`` that have a label (the newest counts), in order of capture."""
        ...

    def newest(self, task: TaskName, limit: int) -> tuple[Capture, ...]:
        """The newest captures of a task, in order."""
        ...

    def texts(self, task: TaskName, capture_ids: Sequence[CaptureId]) -> Mapping[CaptureId, str]:
        """The input of each of these captures of a task that is stored."""
        ...

    def count(self, task: TaskName) -> int:
        """Captures of answers that somebody got: shadow copies are left out."""
        ...

    def producers(self) -> tuple[Producer, ...]:
        """Those whose captures came numbered, by name, with what of each is missing."""
        ...

    def label_count(self, task: TaskName) -> int: ...
    def last_seq(self, task: TaskName) -> int:
        """0 when there is none."""
        ...


class SnapshotStore(Protocol):
    """Rows of dataset snapshots, by digest."""

    def save(self, digest: SnapshotDigest, rows: Sequence[SnapshotRow]) -> None:
        """Write once, atomically; saving the same digest again is a no-op. Raises StorageRefused."""
        ...

    def load(self, digest: SnapshotDigest) -> tuple[SnapshotRow, ...]:
        """Raises NotFound, DataInvalid when the rows do not have that digest."""
        ...

    def path(self, digest: SnapshotDigest) -> Path:
        """Where a training finds the rows (Parquet: the fields of SnapshotRow as columns)."""
        ...


class AdapterStore(Protocol):
    """Adapter folders, by digest; verified on the way in and on the way out."""

    def add(self, folder: Path) -> Manifest:
        """Copy a finished adapter folder in, atomically, under its ``adapter_digest``. Raises AdapterRefused, StorageRefused."""
        ...

    def folder(self, digest: AdapterDigest) -> Path:
        """Verified folder of a version. Raises NotFound, AdapterRefused when its bytes changed."""
        ...

    def manifest(self, digest: AdapterDigest) -> Manifest: ...
    def fingerprint(self, digest: AdapterDigest) -> Fingerprint: ...
    def reference(self, digest: AdapterDigest) -> ReferenceWindow: ...


class Trainer(Protocol):
    """Trains adapters somewhere, under an idempotency key. Survives the death of whoever started it."""

    def start(self, plan: TrainingPlan) -> None:
        """Begin, or attach to what runs or ran under ``plan.key``. Raises PartUnavailable."""
        ...

    def progress(self, key: str) -> TrainingProgress: ...
    def result(self, key: str) -> TrainingResult:
        """Raises TrainingFailed."""
        ...

    def cancel(self, key: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """One text for one adapter version."""

    digest: AdapterDigest
    text: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What the engine says to one question."""

    prediction: Prediction
    embedding: Sequence[float]
    """[hidden], float16 values."""
    tokens: tuple[int, int] = (0, 0)
    """Tokens of the whole text, and how many of them were read (fewer when it was cut); zeros where nobody counted."""
    parts: tuple[float, ...] = ()
    """Confidence, 0..1, of each label of a set or each span of an extraction, in the order of the answer; empty of a single label."""


Tier = Literal["bank", "host", "disk"]
"""Where the weights of a loaded adapter are: where they are computed with, in host memory, or in their folder alone."""


class InferenceEngine(Protocol):
    """One base model in memory and the adapters on it. Answers a batch that mixes adapters in one pass.

    A question whose digest is ``ids.bare(base)`` asks the base itself: an empty label, confidence 1, and the pooled vector.
    More adapters may be loaded than have room: the least recently used leave for a lower tier, and come back when they are asked.
    """

    def load(self, digest: AdapterDigest, folder: Path) -> None:
        """Load beside what is there and prove it by its fingerprint. Raises AdapterRefused; what was loaded stays."""
        ...

    def prove(self, digest: AdapterDigest) -> None:
        """Prove a loaded version again. Raises AdapterRefused, NotFound (kind `adapter`)."""
        ...

    def touched(self, digests: AbstractSet[AdapterDigest]) -> frozenset[AdapterDigest]:
        """Those of the loaded ``digests`` whose weights were written to or replaced since their last proof; cheap."""
        ...

    def unload(self, digest: AdapterDigest) -> None: ...
    def loaded(self) -> frozenset[AdapterDigest]: ...
    def answer(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        """In the order asked. Raises NotFound (kind `adapter`) when a digest is not loaded."""
        ...

    def resident(self) -> Mapping[AdapterDigest, Tier]:
        """Where each loaded adapter is now."""
        ...

    def pin(self, digests: AbstractSet[AdapterDigest]) -> None:
        """These, loaded or not yet, leave their bank after all others; those pinned before no longer do. All stay answerable."""
        ...


class GenerationEngine(Protocol):
    """Writes texts with adapters on one base: the seam for tasks whose answer is a text. Nothing in the house uses it yet."""

    def load(self, digest: AdapterDigest, folder: Path) -> None:
        """As InferenceEngine.load. Raises AdapterRefused."""
        ...

    def unload(self, digest: AdapterDigest) -> None: ...
    def loaded(self) -> frozenset[AdapterDigest]: ...
    def write(self, questions: Sequence[Question], *, max_tokens: int, deadline_s: float) -> tuple[str, ...]:
        """At most ``max_tokens`` tokens for each question, in the order asked. Raises NotFound, DeadlinePassed when not all are ready."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is shown of a training in the tracking server."""

    retraining: Retraining
    contract: TaskContract
    snapshot: DatasetSnapshot
    rung: TrainedRung
    version: AdapterVersion
    verdict: Verdict | None
    confusion: Mapping[str, Mapping[str, int]]
    """True answer to predicted answer to rows, on the held-out rows; of sets and spans in their canonical texts."""


class AdapterRegistry(Protocol):
    """The tracking server and model registry, where people look. A mirror: the database is the truth."""

    def record(self, facts: RunFacts, folder: Path) -> AdapterVersion:
        """Log the run and register the adapter (never base weights); idempotent by digest. Raises PartUnavailable."""
        ...

    def tag_verdict(self, version: AdapterVersion, verdict: Verdict) -> None: ...
    def aliases(self, task: TaskName) -> Mapping[str, str]:
        """Alias to registry version. Raises PartUnavailable."""
        ...

    def set_alias(self, task: TaskName, alias: str, registry_version: str | None) -> None:
        """None removes it."""
        ...


class DriftReporter(Protocol):
    """Compares windows and writes a page people can open."""

    def report(
        self, task: TaskName, reference: WindowRows, current: WindowRows, *, at: datetime, figures: Mapping[str, float] | None = None
    ) -> tuple[Mapping[str, float], str]:
        """Metrics (finite ones only) and the path of the HTML page relative to the home. ``figures`` of ours are shown beside."""
        ...


class Doorbell(Protocol):
    """Says `look` to whoever works; losing a ring costs seconds, never work."""

    def ring(self, job: str, *ids: str) -> None:
        """Never raises: a ring that cannot be sent is made good by the sweep."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class House:
    """The ports that the flows of the loop work with, bound by ``holdfast.bootstrap`` or by a test."""

    unit_of_work: Callable[[], UnitOfWork]
    log: CaptureLog
    snapshots: SnapshotStore
    adapters: AdapterStore
    trainer: Trainer
    registry: AdapterRegistry
    reporter: DriftReporter
    doorbell: Doorbell
    clock: Clock
    base_digests: Mapping[str, str]
    """Base name to the pinned digest of its weights."""
    code_revision: str
    fleet_run_length_events: float = 0.0
    """Run length of the whole fleet, which its tasks share (`domain.fleet_budget`); 0: each contract's own, alone."""
