"""Watch: new captures and labels go through the monitors; every so many captures Evidently draws a report.

Alarms come from the monitors alone. A report shows; when it cannot be made, that is written down and nothing else follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

import numpy as np

from holdfast.domain import monitors, scorers
from holdfast.domain.alerts import Alert
from holdfast.domain.captures import Capture, LabelledCapture
from holdfast.domain.drift import DriftReport, figures_of
from holdfast.domain.estimates import estimate_accuracy
from holdfast.domain.fleet_budget import in_fleet, under
from holdfast.domain.ids import AdapterDigest, AlertId, ReportId, TaskName, derive
from holdfast.domain.monitors import MonitorSet, MonitorState
from holdfast.domain.review import by_chance
from holdfast.domain.routing import COUNTED_ROUTES, Assignment
from holdfast.domain.scorers import Scorers
from holdfast.domain.statistics import e_detector
from holdfast.domain.tasks import MonitoringPolicy
from holdfast.domain.windows import WindowRows
from holdfast.errors import Conflict, HoldfastError
from holdfast.flows.account import share_of
from holdfast.ports import AdapterStore, House, UnitOfWork

PAGE_ROWS = 1_000
"""Rows read from the log at once."""
PAGE_COUNT = 10
"""Pages of one look; what is left waits for the next."""
SCORERS_KEPT = 64
"""Fitted scorers that a process keeps; a version's never change."""

Row = TypeVar("Row", Capture, LabelledCapture)

_kept: dict[tuple[int, AdapterDigest], tuple[AdapterStore, Scorers]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Post:
    """What one look begins with."""

    monitors: MonitorSet
    policy: MonitoringPolicy
    closed: tuple[Alert, ...]
    """Alerts of this version that a person closed."""


def watch(house: House, task: TaskName) -> MonitorSet | None:
    """Show the monitors of a task's champion what came since the last look; None when the task has no champion.

    Every capture and label counts once, whatever dies in between: states and cursors are saved together, and a save that
    another worker overtook is dropped. Raises NotFound, AdapterRefused when the champion's reference cannot be read.
    """
    post = _load(house, task)
    if post is None:
        return None
    seen = post.monitors
    captures = _pages(lambda after: house.log.after(task, after, PAGE_ROWS), seen.capture_cursor, lambda c: c.seq)
    labelled = _pages(lambda after: house.log.labelled_after(task, after, PAGE_ROWS), seen.label_cursor, lambda row: row.label.seq)
    to_clear = _to_clear(seen, post.closed)
    if seen.version and not captures and not labelled and not to_clear:
        return seen
    fitted = scorers_of(house.adapters, seen.adapter_digest)
    states = monitors.resume(seen.states, fitted)
    states = _cleared(states, to_clear, fitted)
    states = under(states, post.policy)
    states = monitors.observe(states, fitted, of_version(captures, seen.adapter_digest), post.policy)
    answers = [row for row in of_version_labelled(labelled, seen.adapter_digest) if by_chance(row)]
    states = monitors.observe_labels(states, fitted, answers, post.policy)
    after = replace(
        seen,
        capture_cursor=captures[-1].seq if captures else seen.capture_cursor,
        label_cursor=labelled[-1].label.seq if labelled else seen.label_cursor,
        states={name: monitors.dump(state) for name, state in states.items()},
        readings=monitors.readings(states, fitted, post.policy),
        updated_at=house.clock(),
    )
    return _save(house, after, to_clear)


def report(house: House, task: TaskName) -> DriftReport | None:
    """Have Evidently compare the newest full window with the reference; None while the window is not full, or when it cannot."""
    with house.unit_of_work() as uow:
        assignment, contract = uow.assignments.get(task), uow.contracts.get(task)
        seen = uow.monitors.get(task, assignment.champion) if assignment else None
    if seen is None:
        return None
    size = contract.monitoring.report_rows
    found = _pages(lambda after: house.log.after(task, after, PAGE_ROWS), seen.report_cursor, lambda c: c.seq)
    captures = of_version(found, seen.adapter_digest)[:size]
    if len(captures) < size:
        return None
    first, last, now = captures[0].seq, captures[-1].seq, house.clock()
    labels = {str(row.capture.capture_id): row.label.value for row in house.log.labelled_since(task, first) if by_chance(row)}
    current = window_of(captures, labels)
    reference = house.adapters.reference(seen.adapter_digest)
    told = estimate_accuracy(reference, scorers_of(house.adapters, seen.adapter_digest), current)
    figures = figures_of(seen.readings, told)
    try:
        metrics, path = house.reporter.report(task, reference.calibration, current, at=now, figures=figures)
    except HoldfastError as failed:  # undecided: never an alarm, and never tried on the same rows for ever
        _report_done(house, seen, last, now, failed=failed.message)
        return None
    made = DriftReport(
        report_id=ReportId(derive("rep", task, seen.adapter_digest, first, last)),
        task=task, adapter_digest=seen.adapter_digest, first_seq=first, last_seq=last, row_count=len(captures),
        labelled_count=sum(label is not None for label in current.labels), created_at=now,
        metrics={name: value for name, value in metrics.items() if np.isfinite(value)}, html_path=path,
        estimate=told,
    )  # fmt: skip
    _report_done(house, seen, last, now, made=made)
    return made


def scorers_of(adapters: AdapterStore, digest: AdapterDigest) -> Scorers:
    """The fitted scorers of a version, kept by this process."""
    key = (id(adapters), digest)
    if key not in _kept:
        if len(_kept) >= SCORERS_KEPT:
            _kept.pop(next(iter(_kept)), None)
        _kept[key] = (adapters, scorers.fit(adapters.reference(digest)))
    return _kept[key][1]


def of_version(captures: Sequence[Capture], digest: AdapterDigest) -> list[Capture]:
    """The captures that speak for one version: answered to a caller who did not choose who answers."""
    return [c for c in captures if c.adapter_digest == digest and c.route in COUNTED_ROUTES]


def of_version_labelled(labelled: Sequence[LabelledCapture], digest: AdapterDigest) -> list[LabelledCapture]:
    """The same of captures with their labels."""
    return [row for row in labelled if row.capture.adapter_digest == digest and row.capture.route in COUNTED_ROUTES]


def window_of(captures: Sequence[Capture], labels: Mapping[str, str]) -> WindowRows:
    """Captures as columns, with the labels that are known by capture id. Needs at least one capture."""
    return WindowRows(
        texts=tuple(c.text for c in captures),
        predictions=tuple(c.prediction.label for c in captures),
        confidences=np.array([c.prediction.confidence for c in captures], dtype=np.float32),
        embeddings=np.stack([c.embedding for c in captures]).astype(np.float32),
        labels=tuple(labels.get(c.capture_id) for c in captures),
    )


def _pages(read: Callable[[int], tuple[Row, ...]], cursor: int, seq_of: Callable[[Row], int]) -> list[Row]:
    """Rows after a cursor, page by page, up to ``PAGE_COUNT`` pages."""
    rows: list[Row] = []
    for _ in range(PAGE_COUNT):
        page = read(cursor)
        rows += page
        if len(page) < PAGE_ROWS:
            break
        cursor = seq_of(page[-1])
    return rows


def _load(house: House, task: TaskName) -> _Post | None:
    with house.unit_of_work() as uow:
        assignment = uow.assignments.get(task)
        if assignment is None:
            return None
        seen = uow.monitors.get(task, assignment.champion) or _first(uow, assignment, house.clock())
        closed = tuple(
            a for a in uow.alerts.of_task(task) if a.adapter_digest == assignment.champion and a.state in ("resolved", "false alarm")
        )
        policy = in_fleet(uow.contracts.get(task).monitoring, share_of(house, uow, task), house.fleet_run_length_events)
        return _Post(monitors=seen, policy=policy, closed=closed)


def _first(uow: UnitOfWork, assignment: Assignment, now: datetime) -> MonitorSet:
    """Monitors of a version that has none: they read on where those of the version before it stand."""
    before = uow.monitors.get(assignment.task, assignment.previous) if assignment.previous else None
    return MonitorSet(
        task=assignment.task, adapter_digest=assignment.champion, capture_cursor=before.capture_cursor if before else 0,
        label_cursor=before.label_cursor if before else 0, report_cursor=before.capture_cursor if before else 0, states={},
        readings=(), updated_at=now,
    )  # fmt: skip


def _to_clear(seen: MonitorSet, closed: Sequence[Alert]) -> tuple[tuple[str, Alert], ...]:
    """Monitor and alert, where a person closed the alert and the monitor has not begun anew since."""
    states = {name: monitors.load(text) for name, text in seen.states.items()} if closed else {}
    return tuple(
        (name, alert) for alert in closed for name in alert.monitors if name in states and alert.alert_id not in states[name].closed
    )


def _cleared(states: Mapping[str, MonitorState], to_clear: Sequence[tuple[str, Alert]], fitted: Scorers) -> dict[str, MonitorState]:
    changed = dict(states)
    for name, alert in to_clear:
        keep = alert.state == "false alarm"
        anew = monitors.begin_anew(changed[name], fitted, name, alert_id=alert.alert_id, keep_traffic=keep)
        changed[name] = replace(anew, detector=e_detector.after(anew.detector, changed[name].detector))
    return changed


def _save(house: House, after: MonitorSet, to_clear: Sequence[tuple[str, Alert]]) -> MonitorSet | None:
    cleared: dict[AlertId, list[str]] = {}
    for name, alert in to_clear:
        cleared.setdefault(alert.alert_id, []).append(name)
    try:
        with house.unit_of_work() as uow:
            uow.monitors.put(after)
            for alert_id, names in cleared.items():
                body = {"alert": alert_id, "monitors": list(names)}
                uow.ledger.append(at=after.updated_at, kind="monitor.restarted", task=after.task, actor="loop", body=body)
            uow.commit()
    except Conflict:  # another worker looked at the same rows first
        pass
    with house.unit_of_work() as uow:
        return uow.monitors.get(after.task, after.adapter_digest)


def _report_done(house: House, seen: MonitorSet, last: int, now: datetime, *, made: DriftReport | None = None, failed: str = "") -> None:
    with house.unit_of_work() as uow:
        newest = uow.monitors.get(seen.task, seen.adapter_digest)
        if newest is not None and newest.report_cursor < last:
            uow.monitors.put(replace(newest, report_cursor=last))
        if made is not None:
            uow.reports.put(made)
        else:
            body = {"adapter": seen.adapter_digest, "last_seq": last, "problem": failed}
            uow.ledger.append(at=now, kind="report.failed", task=seen.task, actor="loop", body=body)
        uow.commit()
