"""One budget of false alarms for all tasks: who has which share of it, and what was spent.

Stated is a run length R: while the busiest task reads n events, all monitors of all tasks together raise at most n / R false alarms
on average. The living tasks (those with a champion) share it by their weights w, which sum to 1, and the monitors of a task by
`scorers.budget_share` v: each event that one of them reads deposits ``w v / R`` of a false alarm (`statistics.e_detector`), and a monitor
alarms when its evidence, counted in deposits, reaches 1. Three facts follow, however the monitors depend:

- The expected number of false alarms is at most the sum of all deposits (each monitor by optional stopping; the sum by linearity).
- N events of the fleet deposit at most N / R, whatever the mix of traffic; tasks of equal traffic, T of them, N / (R T).
- Shares may change while streams run, as tasks come and go: what was deposited stays, what comes is deposited at the new share.
  No later arrival can void the bound, and no sequence of weights over all tasks ever made is needed.

A contract whose own run length asks for fewer false alarms than its share keeps that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.domain.alerts import Alert
from holdfast.domain.ids import TaskName
from holdfast.domain.monitors import MonitorReading, MonitorState, log_threshold
from holdfast.domain.scorers import NAMES, budget_share
from holdfast.domain.statistics import e_detector
from holdfast.domain.statistics.e_bh import NOTHING, anytime_log_e, e_bh
from holdfast.domain.tasks import MonitoringPolicy

FDR = 0.1
"""Of the monitors shown as suspicious, at most this share is so without a change, on average."""
MILLION = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorAccount:
    """What one monitor of one task was given, and what it spent."""

    task: TaskName
    share: float
    """Of the fleet's budget, 0..1; the shares of all monitors sum to at most 1."""
    per_million_events: float
    """False alarms to be expected while this task reads a million events; the sum over the fleet is at most the stated budget."""
    log_threshold: float
    """At which log evidence it alarms from now on."""
    reading: MonitorReading
    event_count: int
    """Read by this monitor of any version of the task."""
    spent: float
    """False alarms to be expected in those."""
    alarm_count: int
    false_alarm_count: int
    """Of the alarms, those that a person closed as false."""
    suspicious: bool
    """Selected by e-BH over all monitors of the fleet, at the stated rate of false discoveries. Opens no alert."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetAccount:
    """Where the budget goes; the monitors that spent most first."""

    false_alarms_per_million_events: float | None
    """The stated budget; None when each contract's own counts alone."""
    per_million_events: float
    """What the shares sum to."""
    false_discovery_rate: float
    task_count: int
    event_count: int
    """Read by monitors; one that four read counts four times."""
    spent: float
    alarm_count: int
    false_alarm_count: int
    monitors: tuple[MonitorAccount, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskBooks:
    """What is known of one living task."""

    task: TaskName
    policy: MonitoringPolicy
    readings: tuple[MonitorReading, ...]
    """Of the champion; empty before the first look."""
    earlier: tuple[MonitorReading, ...]
    """Of the versions before."""
    alerts: tuple[Alert, ...]


def shares(weights: Mapping[TaskName, float]) -> dict[TaskName, float]:
    """Share of each task, by weight.

    >>> shares({TaskName("a"): 1.0, TaskName("b"): 3.0})
    {'a': 0.25, 'b': 0.75}
    """
    whole = math.fsum(weights.values())
    return {task: weight / whole for task, weight in weights.items()}


def in_fleet(policy: MonitoringPolicy, share: float, fleet_run_length: float) -> MonitoringPolicy:
    """The policy of a task with its share (0 to 1) of the fleet's budget; its own where that is stricter, or where there is none (0).

    >>> in_fleet(MonitoringPolicy(), 0.25, 250_000).run_length_events
    1000000
    """
    wanted = max(policy.run_length_events, math.ceil(fleet_run_length / share)) if fleet_run_length else policy.run_length_events
    return dataclasses.replace(policy, run_length_events=wanted)


def under(states: Mapping[str, MonitorState], policy: MonitoringPolicy) -> dict[str, MonitorState]:
    """The states under the run length of ``policy``: evidence keeps its worth, only events to come are counted by it."""
    return {
        name: dataclasses.replace(state, detector=e_detector.rescaled(state.detector, log_threshold(policy, name)))
        for name, state in states.items()
    }


def account(books: Sequence[TaskBooks], fleet_run_length: float) -> FleetAccount:
    """Where the budget of the fleet goes."""
    share = shares({book.task: book.policy.weight for book in books})
    lines = [line for book in books for line in _lines(book, share[book.task], fleet_run_length)]
    picked = e_bh([_log_e(line.reading) for line in lines], FDR)
    lines = [dataclasses.replace(line, suspicious=i in set(picked)) for i, line in enumerate(lines)]
    return FleetAccount(
        false_alarms_per_million_events=MILLION / fleet_run_length if fleet_run_length else None,
        per_million_events=math.fsum(line.per_million_events for line in lines), false_discovery_rate=FDR, task_count=len(books),
        event_count=sum(line.event_count for line in lines), spent=math.fsum(line.spent for line in lines),
        alarm_count=sum(line.alarm_count for line in lines), false_alarm_count=sum(line.false_alarm_count for line in lines),
        monitors=tuple(sorted(lines, key=lambda line: (-line.spent, line.task, NAMES.index(line.reading.monitor)))),
    )  # fmt: skip


def _lines(book: TaskBooks, share: float, fleet_run_length: float) -> list[MonitorAccount]:
    policy = in_fleet(book.policy, share, fleet_run_length)
    now = {reading.monitor: reading for reading in book.readings}
    lines = []
    for name in NAMES:
        threshold = log_threshold(policy, name)
        reading = now.get(name) or _unread(name, threshold)
        mine = [reading, *(r for r in book.earlier if r.monitor == name)]
        alarms = [alert for alert in book.alerts if name in alert.monitors]
        lines.append(MonitorAccount(
            task=book.task, share=share * budget_share(name), per_million_events=MILLION * math.exp(-threshold), log_threshold=threshold,
            reading=reading, event_count=sum(r.event_count for r in mine), spent=math.fsum(r.spent for r in mine),
            alarm_count=len(alarms), false_alarm_count=sum(alert.state == "false alarm" for alert in alarms), suspicious=False,
        ))  # fmt: skip
    return lines


def _unread(name: str, threshold: float) -> MonitorReading:
    return MonitorReading(
        monitor=name, status="not enough data", log_evidence=0.0, log_threshold=threshold, event_count=0, onset_seq=0
    )  # fmt: skip


def _log_e(reading: MonitorReading) -> float:
    """After an alarm the evidence is its highest since: what counts is the alarm itself, so no more than the threshold."""
    if reading.status == "not enough data":
        return NOTHING
    return anytime_log_e(min(0.0, reading.log_evidence - reading.log_threshold), reading.spent)
