"""Trial: a challenger beside the champion. It gets copies of the traffic (shadow), or answers a share of it (canary), or both."""

from __future__ import annotations

from dataclasses import replace

from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.promotions import refusal
from holdfast.domain.records import digest_of
from holdfast.domain.routing import Assignment
from holdfast.errors import BadInput, GateRefused, NotFound, StaleGeneration
from holdfast.ports import House, UnitOfWork


def begin_trial(
    house: House,
    task: TaskName,
    *,
    digest: AdapterDigest,
    share_canary: float,
    shadow: bool,
    actor: str,
    reason: str,
    expected_generation: int | None = None,
) -> Assignment:
    """Put ``digest`` on trial, in place of whatever is on trial. It takes effect once every replica holds it.

    ``share_canary``: 0..1; above 0 it answers callers, which needs what a promotion needs: a passing verdict against the champion.
    Shadow alone needs none, since nobody gets its answers. Raises BadInput, NotFound, GateRefused, StaleGeneration.
    """
    if not 0.0 <= share_canary <= 1.0 or not (share_canary or shadow):
        raise BadInput(problem=f"A trial needs a canary share of 0 to 1, or shadow copies; {share_canary} and none were given.")
    now = house.clock()
    with house.unit_of_work() as uow:
        current = _current(uow, task, expected_generation)
        no = _refused(uow, current, digest, share_canary, house)
        if no is not None:
            raise GateRefused(digest=digest, task=task, reason=no, remedy=f"see `holdfast evaluate {task}`; shadow copies need no verdict.")
        begun = replace(
            current, challenger=digest, share_canary=share_canary, shadow=shadow, generation=uow.assignments.next_generation(),
            changed_at=now, stuck_reason=None,
        )  # fmt: skip
        uow.assignments.put(begun, expected_generation=current.generation)
        body = {
            "challenger": digest, "champion": current.champion, "share_canary": share_canary, "shadow": shadow,
            "generation": begun.generation, "reason": reason,
        }  # fmt: skip
        uow.ledger.append(at=now, kind="trial.begun", task=task, actor=actor, body=body)
        uow.commit()
    house.doorbell.ring("holdfast.reconcile_fleet")
    return begun


def end_trial(house: House, task: TaskName, *, actor: str, reason: str, expected_generation: int | None = None) -> Assignment:
    """Let the champion answer alone. Ending what has ended changes nothing. Raises NotFound, StaleGeneration."""
    now = house.clock()
    with house.unit_of_work() as uow:
        current = _current(uow, task, expected_generation)
        if current.challenger is None:
            return current
        ended = replace(
            current, challenger=None, share_canary=0.0, shadow=False, generation=uow.assignments.next_generation(), changed_at=now,
            stuck_reason=None,
        )  # fmt: skip
        uow.assignments.put(ended, expected_generation=current.generation)
        body = {"challenger": current.challenger, "generation": ended.generation, "reason": reason}
        uow.ledger.append(at=now, kind="trial.ended", task=task, actor=actor, body=body)
        uow.commit()
    house.doorbell.ring("holdfast.reconcile_fleet")
    return ended


def _current(uow: UnitOfWork, task: TaskName, expected_generation: int | None) -> Assignment:
    uow.contracts.get(task)
    current = uow.assignments.get(task)
    if current is None:
        raise NotFound(kind="champion of task", name=task)
    if expected_generation not in (None, current.generation):
        raise StaleGeneration(task=task, expected=expected_generation, actual=current.generation)
    return current


def _refused(uow: UnitOfWork, current: Assignment, digest: AdapterDigest, share_canary: float, house: House) -> str | None:
    """Why this version may not be on this trial."""
    if uow.versions.get(digest).task != current.task:
        return f"it belongs to task {uow.versions.get(digest).task}"
    if digest == current.champion:
        return "it is the champion"
    if not share_canary:
        return None
    policy = digest_of(uow.contracts.get(current.task))
    return refusal(uow.verdicts.newest_of(digest), digest=digest, champion=current.champion, policy_digest=policy, now=house.clock())
