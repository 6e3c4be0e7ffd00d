"""Roll out: reconcile the fleet with the assignments. Warm first, then point; and keep the registry's aliases true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.retraining import Retraining
from holdfast.domain.routing import Assignment, ReplicaReport, RoutingTable, route_of
from holdfast.ports import House, UnitOfWork


def roll_out(house: House, *, silence_s: float) -> RoutingTable:
    """Point the routing table at every assigned version that all living replicas hold and proved; the table that results.

    A version that a replica refuses stays unpublished: the table goes on naming the old one, and the assignment says why.
    """
    now = house.clock()
    with house.unit_of_work() as uow:
        table = uow.assignments.table()
        behind = [a for a in uow.assignments.all().values() if _is_behind(a, table)]
        replicas = uow.replicas.live(now - timedelta(seconds=silence_s)) if behind else ()
    for assignment in behind:
        _settle(house, assignment, replicas, now)
    if not behind:
        return table
    with house.unit_of_work() as uow:
        return uow.assignments.table()


def _is_behind(assignment: Assignment, table: RoutingTable) -> bool:
    route = table.routes.get(assignment.task)
    return route is None or route.generation < assignment.generation


def _settle(house: House, assignment: Assignment, replicas: Sequence[ReplicaReport], now: datetime) -> None:
    named = [digest for digest in (assignment.champion, assignment.challenger) if digest is not None]
    refusals = [(digest, f"replica {r.replica_id}: {r.refused[digest]}") for digest in named for r in replicas if digest in r.refused]
    if replicas and all(digest in r.ready for digest in named for r in replicas):
        _publish(house, assignment, now)
    elif refusals and assignment.stuck_reason != refusals[0][1]:
        digest, reason = refusals[0]
        with house.unit_of_work() as uow:
            uow.assignments.mark_stuck(assignment.task, assignment.generation, reason)
            body = {"digest": digest, "generation": assignment.generation, "reason": reason}
            uow.ledger.append(at=now, kind="roll_out.stuck", task=assignment.task, actor="loop", body=body)
            uow.commit()


def _publish(house: House, assignment: Assignment, now: datetime) -> None:
    with house.unit_of_work() as uow:
        current = uow.assignments.get(assignment.task)
        if current is None or current.generation != assignment.generation:
            return
        uow.assignments.publish(route_of(assignment))
        uow.assignments.mark_stuck(assignment.task, assignment.generation, None)
        newest, *earlier = uow.promotions.of_task(assignment.task) or (None,)
        if newest is not None and newest.state != "live":  # it is live already where a trial alone was changed
            uow.promotions.put(replace(newest, state="live", live_at=now))
        for promotion in earlier:
            if promotion is not None and promotion.state != "superseded":
                uow.promotions.put(replace(promotion, state="superseded"))
        body = {"digest": assignment.champion, "generation": assignment.generation}
        uow.ledger.append(at=now, kind="roll_out.live", task=assignment.task, actor="loop", body=body)
        uow.commit()


def mirror(house: House) -> tuple[str, ...]:
    """Make the registry's aliases say what the database says; what was put right, one sentence each.

    Raises PartUnavailable when the registry does not answer.
    """
    with house.unit_of_work() as uow:
        assignments = uow.assignments.all()
        wanted = {task: _wanted(uow, assignment) for task, assignment in assignments.items()}
    repaired = []
    for task, aliases in wanted.items():
        found = house.registry.aliases(TaskName(task))
        for alias, registry_version in aliases.items():
            if found.get(alias) == registry_version:
                continue
            house.registry.set_alias(TaskName(task), alias, registry_version)
            repaired.append(f"{task}: alias {alias} was {found.get(alias)}, is {registry_version}")
            _note(house, task, alias, found.get(alias), registry_version)
    return tuple(repaired)


def _note(house: House, task: str, alias: str, found: str | None, wanted: str | None) -> None:
    with house.unit_of_work() as uow:
        body = {"alias": alias, "found": found, "put": wanted}
        uow.ledger.append(at=house.clock(), kind="alias.mirrored", task=task, actor="loop", body=body)
        uow.commit()


def _wanted(uow: UnitOfWork, assignment: Assignment) -> dict[str, str | None]:
    """Alias to registry version. A champion that is not in the registry yet is left alone; it comes with a later look."""
    champion = uow.versions.get(assignment.champion)
    challenger = assignment.challenger or _candidate(uow.retrainings.of_task(assignment.task))
    wanted: dict[str, str | None] = {} if champion.registry_version is None else {"champion": champion.registry_version}
    on_trial = uow.versions.find(challenger) if challenger else None
    wanted["challenger"] = on_trial.registry_version if on_trial else None
    return wanted


def _candidate(retrainings: Sequence[Retraining]) -> AdapterDigest | None:
    waiting = [r.candidate_digest for r in retrainings if r.state == "judged"]
    return waiting[0] if waiting else None
