"""Retrain: from a request to a registered candidate, one small step at a time.

The row is the job. ``advance`` claims it, does one step that takes seconds, saves under the fence and lets go; a step that is
cut off by a kill is done again by the next claim. The training itself runs elsewhere under an idempotency key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from holdfast.domain.adapters import AdapterVersion, Lineage, adapter_digest
from holdfast.domain.gates import pick_rung
from holdfast.domain.ids import AlertId, RetrainingId, SnapshotDigest, TaskName, derive
from holdfast.domain.records import to_plain
from holdfast.domain.retraining import (
    ENDED,
    LEASE_S,
    SEED,
    Hold,
    Retraining,
    TrainedRung,
    TrainingPlan,
    TrainingResult,
    decide_by_hand,
    rungs_of,
)
from holdfast.errors import Conflict, GateRefused, HoldfastError, LeaseLost, NotFound, PartUnavailable, RetrainingHeld
from holdfast.flows import freeze, judge, promote
from holdfast.ports import House, UnitOfWork

POLL_S = 1.0
"""Seconds until a training that runs is looked at again."""
WAIT_S = 30.0
"""Seconds until a candidate that waits for a person is looked at again: it may have been promoted, or its verdict have expired."""
RETRY_S = 5.0
"""Seconds until a step whose outside part was away is tried again."""


def request(
    house: House,
    task: TaskName,
    *,
    reason: str,
    actor: str,
    alert_id: AlertId | None = None,
    since_seq: int = 0,
    key: str | None = None,
    anyway: bool = False,
) -> Retraining:
    """Ask for a training of a task; asking again with the same key returns the same retraining.

    A task without a champion is trained on its newest snapshot; another one on its champion's rows and all labels since.
    Raises NotFound (task, or a first training without data), Conflict when one is under way under another key, RetrainingHeld while an
    alert says that the inputs come broken, unless ``anyway``.
    """
    now = house.clock()
    with house.unit_of_work() as uow:
        uow.contracts.get(task)
        assignment = uow.assignments.get(task)
        snapshots = uow.snapshots.of_task(task)
        if assignment is None and not snapshots:
            raise NotFound(kind="dataset of task", name=task)
        wanted = Retraining(
            retraining_id=RetrainingId(derive("rtr", task, key or f"{actor} {now.isoformat()}")), task=task, alert_id=alert_id,
            reason=reason, requested_by=actor, requested_at=now, since_seq=since_seq, due_at=now,
            champion_digest=assignment.champion if assignment else None, snapshot_digest=None if assignment else snapshots[0].digest,
        )  # fmt: skip
        earlier = {r.retraining_id: r for r in uow.retrainings.of_task(task)}
        if wanted.retraining_id not in earlier:
            wanted = replace(wanted, forced_over=_insisted(uow, task, anyway))
        running = [r for r in earlier.values() if r.state not in ENDED and r.retraining_id != wanted.retraining_id]
        if running:
            _supersede(uow, running[0], now)
        stored = uow.retrainings.request(wanted)
        if stored == wanted:
            body = {"retraining": stored.retraining_id, "reason": reason, "alert": alert_id, "forced_over": stored.forced_over}
            uow.ledger.append(at=now, kind="retraining.requested", task=task, actor=actor, body=body)
        uow.commit()
    house.doorbell.ring("holdfast.advance_retraining", stored.retraining_id)
    return stored


def _insisted(uow: UnitOfWork, task: TaskName, anyway: bool) -> AlertId | None:
    """The alert in spite of which a person wants the training. Raises RetrainingHeld when they do not insist."""
    decision = decide_by_hand(uow.alerts.of_task(task), anyway=anyway)
    if isinstance(decision, Hold):
        raise RetrainingHeld(task=task, reason=decision.reason)
    return decision.over


def _supersede(uow: UnitOfWork, running: Retraining, now: datetime) -> None:
    """A judged candidate that waits for a person gives way to a newer request; anything else that runs does not."""
    if running.state != "judged":
        raise Conflict(problem=f"Retraining {running.retraining_id} of task {running.task} is under way ({running.state}).")
    uow.retrainings.save(_ended(running, "refused", now, error="superseded by a newer request"))


def advance(house: House, retraining_id: RetrainingId, *, owner: str) -> Retraining | None:
    """Do the next step of one retraining; None when another worker holds it, it is not due, or it has ended.

    An outside part that is away, or a lease that was lost, changes nothing: the step is done again later.
    """
    now = house.clock()
    with house.unit_of_work() as uow:
        claimed = uow.retrainings.claim(retraining_id, owner=owner, now=now, lease_s=LEASE_S)
        uow.commit()
    if claimed is None:
        return None
    step = STEPS[claimed.state]
    try:
        after = step(house, claimed)
    except PartUnavailable as away:
        after = _later(claimed, now, RETRY_S, error=away.message)
    except LeaseLost:
        return None
    except GateRefused as refused:
        after = _ended(claimed, "refused", house.clock(), error=refused.message)
    except HoldfastError as refused:
        after = _ended(claimed, "failed", house.clock(), error=refused.message)
    return _let_go(house, claimed, after)


def _let_go(house: House, before: Retraining, after: Retraining) -> Retraining | None:
    """Save what a step decided, with the ledger row of a changed state, and free the lease."""
    free = replace(after, lease_owner=None, lease_until=None)
    try:
        with house.unit_of_work() as uow:
            uow.retrainings.save(free)
            if free.state != before.state:
                _note(uow, house.clock(), free)
            uow.commit()
    except LeaseLost:
        return None
    if free.state not in ENDED and free.due_at <= house.clock():
        house.doorbell.ring("holdfast.advance_retraining", free.retraining_id)
    return free


def _note(uow: UnitOfWork, now: datetime, r: Retraining) -> None:
    keys = ("retraining_id", "snapshot_digest", "candidate_digest", "beside_digest", "verdict_id", "promotion_id", "labels_used", "error")
    body = {name: to_plain(getattr(r, name)) for name in keys}
    uow.ledger.append(at=now, kind=f"retraining.{r.state}", task=r.task, actor="loop", body=body)


def _start(house: House, r: Retraining) -> Retraining:
    """requested -> training: freeze the rows. The training is started by the next step, after this one is saved."""
    now = house.clock()
    with house.unit_of_work() as uow:
        assignment = uow.assignments.get(r.task)
        contract = uow.contracts.get(r.task)
    champion = assignment.champion if assignment else None
    digest, labels_used = r.snapshot_digest, 0
    if digest is None:
        snapshot, labels_used = freeze.freeze_with_labels(house, r, contract, champion)
        digest = snapshot.digest
        with house.unit_of_work() as uow:
            uow.snapshots.put(snapshot)
            uow.commit()
    return replace(
        r, state="training", attempt=1, snapshot_digest=digest, champion_digest=champion, labels_used=labels_used, due_at=now, error=None
    )


def _train(house: House, r: Retraining) -> Retraining:
    """training -> trained: start or attach, look, and take in what is finished."""
    progress, now = house.trainer.progress(r.retraining_id), house.clock()
    if progress.state == "absent":
        house.trainer.start(_plan(house, r))
        return _later(r, now, POLL_S)
    if progress.state == "running":
        return replace(_later(r, now, POLL_S), progress=progress.share, error=None)
    if progress.state == "done":
        return _take_in(house, r, house.trainer.result(r.retraining_id))
    with house.unit_of_work() as uow:
        attempts = uow.contracts.get(r.task).retraining.max_attempts
    if r.attempt >= attempts:
        return _ended(r, "failed", now, error=f"the training failed {r.attempt} times; last: {progress.message}")
    house.trainer.start(_plan(house, r))
    return replace(_later(r, now, POLL_S), attempt=r.attempt + 1, error=progress.message)


def _plan(house: House, r: Retraining) -> TrainingPlan:
    with house.unit_of_work() as uow:
        contract = uow.contracts.get(r.task)
    assert r.snapshot_digest is not None, "a training without rows is never started"
    rows = house.snapshots.load(r.snapshot_digest)
    return TrainingPlan(
        key=r.retraining_id, task=r.task, base=contract.base, base_digest=house.base_digests[contract.base], kind=contract.kind, seed=SEED,
        labels=freeze.labels_of(contract, rows), max_tokens=contract.max_tokens, rungs=rungs_of(contract.retraining),
        lora=contract.retraining.lora, max_suspected_share=contract.retraining.max_suspected_share,
        snapshot_digest=r.snapshot_digest, champion_digest=r.champion_digest,
    )  # fmt: skip


def _take_in(house: House, r: Retraining, result: TrainingResult) -> Retraining:
    """Copy the finished adapters in, choose the rung, and write down the versions."""
    with house.unit_of_work() as uow:
        contract = uow.contracts.get(r.task)
    assert r.snapshot_digest is not None, "a training has rows"
    rows = house.snapshots.load(r.snapshot_digest)
    by_rung = {rung.rung: rung for rung in result.rungs}
    scores = {rung.rung: result.scores[rung.digest] for rung in result.rungs}
    chosen = pick_rung(contract.retraining, scores["head"], scores.get("lora"), rows, contract.metric)
    for rung in result.rungs:
        house.adapters.add(Path(rung.folder))
    now = house.clock()
    with house.unit_of_work() as uow:
        for rung in result.rungs:
            _put_version(uow, house, r, rung, now)
        freeze.note_taught(uow, r, result.taught, now)
        uow.commit()
    beside = [rung.digest for name, rung in by_rung.items() if name != chosen]
    return replace(
        r, state="trained", candidate_digest=by_rung[chosen].digest, beside_digest=beside[0] if beside else None,
        train_seconds=sum(rung.seconds for rung in result.rungs), progress=1.0, due_at=now, error=None,
    )  # fmt: skip


def _put_version(uow: UnitOfWork, house: House, r: Retraining, rung: TrainedRung, now: datetime) -> None:
    if uow.versions.find(rung.digest) is not None:
        return
    manifest = house.adapters.manifest(rung.digest)
    assert adapter_digest(manifest) == rung.digest, "the store verified it on the way in"
    uow.versions.put(
        AdapterVersion(
            digest=rung.digest,
            task=r.task,
            number=len(uow.versions.of_task(r.task)) + 1,
            rung=rung.rung,
            labels=manifest.labels,
            base=manifest.base,
            max_tokens=manifest.max_tokens,
            lineage=Lineage(
                base_digest=manifest.base_digest,
                snapshot_digest=SnapshotDigest(r.snapshot_digest or ""),
                code_revision=house.code_revision,
                parent_digest=r.champion_digest,
                seed=SEED,
                forced_over=r.forced_over,
            ),
            created_at=now,
            train_seconds=rung.seconds,
            byte_count=rung.byte_count,
        )
    )


def _judge(house: House, r: Retraining) -> Retraining:
    """trained -> judged: compare on the same rows, then show it in the registry."""
    verdict = judge.judge(house, r)
    judge.show(house, r, verdict)
    return replace(r, state="judged", verdict_id=verdict.verdict_id, due_at=house.clock(), error=None)


def _conclude(house: House, r: Retraining) -> Retraining:
    """judged -> promoted or refused; a passing candidate that a person must promote waits until its verdict expires."""
    assert r.verdict_id is not None and r.candidate_digest is not None, "a judged retraining has both"
    now = house.clock()
    with house.unit_of_work() as uow:
        verdict = uow.verdicts.get(r.verdict_id)
        mode = uow.contracts.get(r.task).promotion.mode
        assignment = uow.assignments.get(r.task)
    if assignment is not None and assignment.champion == r.candidate_digest:
        return _ended(r, "promoted", now)
    if verdict.outcome != "pass":
        return _ended(r, "refused", now, error=verdict.reason)
    if now >= verdict.expires_at:
        return _ended(r, "refused", now, error="nobody promoted it before its verdict expired")
    if mode != "automatic" or r.champion_digest is None:
        return _later(r, now, WAIT_S)
    promotion = promote.promote(house, r.task, digest=r.candidate_digest, actor="policy", reason=r.reason)
    return replace(_ended(r, "promoted", now), promotion_id=promotion.promotion_id)


def _later(r: Retraining, now: datetime, seconds: float, *, error: str | None = None) -> Retraining:
    return replace(r, due_at=now + timedelta(seconds=seconds), error=error)


def _ended(r: Retraining, state: str, now: datetime, *, error: str | None = None) -> Retraining:
    return replace(r, state=state, ended_at=now, error=error)  # type: ignore[arg-type]


STEPS: Mapping[str, Callable[[House, Retraining], Retraining]] = {
    "requested": _start,
    "training": _train,
    "trained": _judge,
    "judged": _conclude,
}
