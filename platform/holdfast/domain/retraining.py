"""Retrainings: one attempt to mend a task, from request to verdict, and the work in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from holdfast.domain.alerts import LIVING, Alert
from holdfast.domain.datasets import TaughtRows
from holdfast.domain.diagnosis import Cause
from holdfast.domain.ids import AdapterDigest, AlertId, PromotionId, RetrainingId, SnapshotDigest, TaskName, VerdictId
from holdfast.domain.tasks import Kind, LoraSpec, RetrainingPolicy, Rung

RetrainingState = Literal["requested", "training", "trained", "judged", "promoted", "refused", "failed", "cancelled"]
ENDED: frozenset[str] = frozenset({"promoted", "refused", "failed", "cancelled"})
SEED = 20_260
"""Seed of every split and training; a plan's rows and seed decide its adapters."""
LEASE_S = 30.0
"""How long a claimed step may take before another worker may claim it; a step takes seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraining:
    """One retraining: the row that is the job. Celery only says: look."""

    retraining_id: RetrainingId
    task: TaskName
    alert_id: AlertId | None
    reason: str
    requested_by: str
    requested_at: datetime
    since_seq: int
    """Captures after this seq count as recent."""
    state: RetrainingState = "requested"
    due_at: datetime
    """Not looked at before this instant."""
    lease_owner: str | None = None
    lease_until: datetime | None = None
    fence: int = 0
    """Rises with each claim; a save under an older fence is refused."""
    attempt: int = 0
    """Trainings started so far."""
    snapshot_digest: SnapshotDigest | None = None
    champion_digest: AdapterDigest | None = None
    """The champion it was compared with; None for a first version."""
    candidate_digest: AdapterDigest | None = None
    beside_digest: AdapterDigest | None = None
    """The other rung, trained on the same rows and shown beside the candidate."""
    forced_over: AlertId | None = None
    """The alert on broken inputs that held it, where a person started it all the same."""
    labels_used: int = 0
    train_seconds: float = 0.0
    progress: float = 0.0
    """Share of the present training that is done, 0..1."""
    verdict_id: VerdictId | None = None
    promotion_id: PromotionId | None = None
    error: str | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """All that a training needs to know; the same plan gives the same adapters."""

    key: str
    """Idempotency key: starting a key that runs or has run attaches to it."""
    task: TaskName
    base: str
    base_digest: str
    labels: tuple[str, ...]
    max_tokens: int
    rungs: tuple[Rung, ...]
    lora: LoraSpec
    seed: int
    snapshot_digest: SnapshotDigest
    champion_digest: AdapterDigest | None
    """Scored on the same held-out rows, and compared with."""
    kind: Kind = "classification"
    max_suspected_share: float = 0.0
    """Share of the training rows that may be left out because their labels look wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One scored checkpoint."""

    step: int
    epoch: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRung:
    """One rung of a training: an adapter folder that is complete and digested."""

    rung: Rung
    digest: AdapterDigest
    folder: str
    """Absolute path of the finished adapter folder."""
    seconds: float
    byte_count: int
    curve: tuple[CurvePoint, ...]
    best_step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldoutScores:
    """What one version answered on the held-out rows of a snapshot, in order of ``row_ids``."""

    digest: AdapterDigest
    row_ids: tuple[int, ...]
    predictions: tuple[str, ...]
    confidences: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What a finished training hands over."""

    key: str
    rungs: tuple[TrainedRung, ...]
    scores: Mapping[str, HoldoutScores]
    """Digest to scores: each trained rung, and the champion where the plan names one."""
    taught: TaughtRows | None = None
    """Which of the snapshot's training rows taught; None where the trainer does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOrder:
    """The plan with where things lie on the machine that trains; written as ``order.json`` into the work folder of its key.

    In the work folder a training writes ``progress.json`` (a TrainingProgress), ``checkpoints/``, and at the end either
    ``result.json`` (a TrainingResult, the sign that it is done) or ``failure.json`` (a TrainingProgress in state `failed`).
    """

    plan: TrainingPlan
    snapshot_path: str
    """Parquet file of the snapshot's rows."""
    champion_folder: str | None
    base_path: str
    """As in the settings: a folder, or `package:NAME`."""
    cache_folder: str
    """Outputs of frozen prefixes, by base digest and text; shared by all trainings."""
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgress:
    """How a training stands."""

    state: Literal["absent", "running", "done", "failed"]
    share: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """Start it."""

    over: AlertId | None = None
    """The alert that speaks against it, where a person insists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Do not start it now, for this reason."""

    reason: str
    until: datetime | None = None
    alert_id: AlertId | None = None
    """The alert that holds it, where one does."""


HELD_BY_HAND: frozenset[Cause] = frozenset({"upstream break", "label source"})
"""Causes under which a person's retraining waits until the person insists."""
GROWTH = 1.25
"""After a refusal under the same alert, this many times its labels are needed for another try: fewer would hardly change it."""


def decide(
    policy: RetrainingPolicy, *, labels_count: int, earlier: Sequence[Retraining], now: datetime, alert_id: AlertId | None = None
) -> Go | Hold:
    """Whether an alert whose action is `retrain` may start a training now.

    Args:
        policy: of the task.
        labels_count: labelled captures since the change.
        earlier: every retraining of the task so far.
        now: the instant of the decision.
        alert_id: of the alert that asks; None for a person.
    """
    if policy.mode == "off":
        return Hold(reason="retraining is off in the contract")
    running = [r for r in earlier if r.state not in ENDED]
    if running:
        return Hold(reason=f"retraining {running[0].retraining_id} is under way")
    if labels_count < policy.min_labels:
        return Hold(reason=f"{policy.min_labels - labels_count} more labels are needed ({labels_count} of {policy.min_labels})")
    refused = [r.labels_used for r in earlier if r.state == "refused" and alert_id is not None and r.alert_id == alert_id]
    again_at = round(GROWTH * max(refused, default=0))
    if labels_count < again_at:
        return Hold(reason=f"the last candidate was refused; {again_at - labels_count} more labels are needed to try again")
    ended = [r.ended_at for r in earlier if r.ended_at is not None]
    if ended and now < max(ended) + timedelta(seconds=policy.cool_down_s):
        return Hold(reason="cooling down after the last retraining", until=max(ended) + timedelta(seconds=policy.cool_down_s))
    today = [r for r in earlier if r.requested_at > now - timedelta(days=1)]
    if len(today) >= policy.max_per_day:
        return Hold(reason=f"the budget of {policy.max_per_day} retrainings a day is spent")
    return Go()


def decide_by_hand(alerts: Sequence[Alert], *, anyway: bool = False) -> Go | Hold:
    """Whether a training that a person asks for may start: not on inputs that come broken or labels in doubt, unless the person insists.

    Args:
        alerts: of the task, in any state.
        anyway: start it in spite of such an alert.
    """
    held = next((a for a in alerts if a.state in LIVING and a.diagnosis.cause in HELD_BY_HAND), None)
    if held is None:
        return Go()
    if anyway:
        return Go(over=held.alert_id)
    found = held.diagnosis
    article = "an upstream break" if found.cause == "upstream break" else f"about a {found.cause}"
    return Hold(reason=f"alert {held.alert_id} is {article}: {found.sentence}", alert_id=held.alert_id)


def rungs_of(policy: RetrainingPolicy) -> tuple[Rung, ...]:
    """The rungs that are trained: the head always, LoRA unless the contract asks for the head alone."""
    return ("head",) if policy.rung == "head" else ("head", "lora")
