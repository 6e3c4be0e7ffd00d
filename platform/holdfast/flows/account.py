"""Account: which share of the fleet's false-alarm budget a task has now, and where the budget went."""

from __future__ import annotations

from datetime import datetime, timedelta

from holdfast.domain.fleet_budget import FleetAccount, TaskBooks, account, shares
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.tasks import MonitoringPolicy
from holdfast.ports import House, UnitOfWork

KEPT = timedelta(seconds=5)
"""For so long a process may go by shares it has read: a look reads one contract, not those of the whole fleet."""

_kept: dict[int, tuple[House, datetime, dict[TaskName, float]]] = {}


def share_of(house: House, uow: UnitOfWork, task: TaskName) -> float:
    """Share (0 to 1) of a living task. One that came in the last seconds may not have lessened the others' yet."""
    if not house.fleet_run_length_events:
        return 1.0
    now, known = house.clock(), _kept.get(id(house))
    if known is None or known[0] is not house or task not in known[2] or not timedelta() <= now - known[1] < KEPT:
        living = uow.assignments.all()
        known = house, now, shares({c.task: c.monitoring.weight for c in uow.contracts.all() if c.task in living})
        _kept.clear()
        _kept[id(house)] = known
    return known[2][task]


def fleet_account(house: House) -> FleetAccount:
    """Where the budget of the fleet goes; without a task that has a champion, an account with no line."""
    with house.unit_of_work() as uow:
        living = uow.assignments.all()
        books = [_books(uow, c.task, c.monitoring, living[c.task].champion) for c in uow.contracts.all() if c.task in living]
    return account(books, house.fleet_run_length_events)


def _books(uow: UnitOfWork, task: TaskName, policy: MonitoringPolicy, champion: AdapterDigest) -> TaskBooks:
    sets = {v.digest: uow.monitors.get(task, v.digest) for v in uow.versions.of_task(task)}
    sets[champion] = uow.monitors.get(task, champion)
    return TaskBooks(
        task=task, policy=policy, alerts=uow.alerts.of_task(task),
        readings=tuple(r for digest, found in sets.items() if found and digest == champion for r in found.readings),
        earlier=tuple(r for digest, found in sets.items() if found and digest != champion for r in found.readings),
    )  # fmt: skip
