"""Promote: move the champion in one transaction, only with a passing verdict on that very adapter; and move it back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from holdfast.domain.ids import AdapterDigest, PromotionId, TaskName, VerdictId, derive
from holdfast.domain.promotions import Promotion, PromotionKind, refusal
from holdfast.domain.records import digest_of
from holdfast.domain.routing import Assignment
from holdfast.errors import GateRefused, NotFound, StaleGeneration
from holdfast.ports import House, UnitOfWork


def promote(
    house: House, task: TaskName, *, digest: AdapterDigest, actor: str, reason: str, expected_generation: int | None = None
) -> Promotion:
    """Make ``digest`` champion of a task. Promoting the champion again returns the promotion that made it so.

    Verdict, generation and contract are read in the transaction that writes the pointer, so nothing can change in between.
    Raises NotFound, GateRefused, StaleGeneration.
    """
    now = house.clock()
    with house.unit_of_work() as uow:
        contract = uow.contracts.get(task)
        version = uow.versions.get(digest)
        current = _current(uow, task, expected_generation)
        if current is not None and current.champion == digest:
            return _promotion_of(uow, current)
        verdict = uow.verdicts.newest_of(digest)
        champion = current.champion if current else None
        no = refusal(verdict, digest=digest, champion=champion, policy_digest=digest_of(contract), now=now)
        if version.task != task:
            no = f"it belongs to task {version.task}"
        if no is not None or verdict is None:
            raise GateRefused(digest=digest, task=task, reason=no, remedy=f"see the criteria with `holdfast evaluate {task}`; train again.")
        promotion = _move(
            uow, now, current, kind="promotion", task=task, digest=digest, verdict_id=verdict.verdict_id, actor=actor, reason=reason
        )
        _conclude_retraining(uow, promotion)
        uow.commit()
    house.doorbell.ring("holdfast.reconcile_fleet")
    return promotion


def roll_back(house: House, task: TaskName, *, actor: str, reason: str, expected_generation: int | None = None) -> Promotion:
    """Make the previous champion champion again. It passed its own gate and is still loaded, so nothing is awaited.

    Raises NotFound when there is no previous champion, StaleGeneration.
    """
    now = house.clock()
    with house.unit_of_work() as uow:
        uow.contracts.get(task)
        current = _current(uow, task, expected_generation)
        if current is None or current.previous is None:
            raise NotFound(kind="earlier champion of task", name=task)
        promotion = _move(
            uow, now, current, kind="rollback", task=task, digest=current.previous, verdict_id=None, actor=actor, reason=reason
        )
        uow.commit()
    house.doorbell.ring("holdfast.reconcile_fleet")
    return promotion


def _current(uow: UnitOfWork, task: TaskName, expected_generation: int | None) -> Assignment | None:
    current = uow.assignments.get(task)
    actual = current.generation if current else 0
    if expected_generation is not None and expected_generation != actual:
        raise StaleGeneration(task=task, expected=expected_generation, actual=actual)
    return current


def _conclude_retraining(uow: UnitOfWork, promotion: Promotion) -> None:
    """The retraining that made the version has reached its end. One that a worker holds right now is concluded by that worker."""
    for r in uow.retrainings.of_task(promotion.task):
        if r.candidate_digest == promotion.digest and r.state == "judged" and r.lease_owner is None:
            done = replace(r, state="promoted", promotion_id=promotion.promotion_id, ended_at=promotion.created_at, fence=r.fence + 1)
            uow.retrainings.save(done)


def _promotion_of(uow: UnitOfWork, current: Assignment) -> Promotion:
    """The newest move to the champion; a trial may have raised the generation since."""
    return next(p for p in uow.promotions.of_task(current.task) if p.digest == current.champion)


def _move(  # noqa: PLR0913
    uow: UnitOfWork,
    now: datetime,
    current: Assignment | None,
    *,
    kind: PromotionKind,
    task: TaskName,
    digest: AdapterDigest,
    verdict_id: VerdictId | None,
    actor: str,
    reason: str,
) -> Promotion:
    """Write pointer, promotion and ledger row; the caller commits all three or none."""
    generation = uow.assignments.next_generation()
    before = current.champion if current else None
    uow.assignments.put(
        Assignment(task=task, champion=digest, previous=before, generation=generation, changed_at=now),
        expected_generation=current.generation if current else None,
    )
    promotion = Promotion(
        promotion_id=PromotionId(derive("prm", task, digest, generation)),
        task=task,
        kind=kind,
        digest=digest,
        from_digest=before,
        verdict_id=verdict_id,
        generation=generation,
        actor=actor,
        reason=reason,
        state="warming",
        created_at=now,
    )
    uow.promotions.put(promotion)
    body = {
        "promotion": promotion.promotion_id,
        "to": digest,
        "from": before,
        "verdict": verdict_id,
        "generation": generation,
        "reason": reason,
    }
    uow.ledger.append(at=now, kind=f"{kind}.committed", task=task, actor=actor, body=body)
    return promotion
