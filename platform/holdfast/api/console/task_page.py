"""The page of one task, and the drift reports that belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse
from markupsafe import Markup

from holdfast.api.console.fleet import anchor, labels_words
from holdfast.api.console.plots import Mark, Span, range_bar, score_plot, share_bar
from holdfast.api.console.render import page
from holdfast.api.dependencies import HouseOf, SettingsOf
from holdfast.api.standing import TaskFacts, facts_of, standing_of
from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.alerts import Alert
from holdfast.domain.captures import Capture
from holdfast.domain.gates import CriterionResult, Verdict
from holdfast.domain.ids import AlertId, TaskName
from holdfast.domain.monitors import MonitorReading
from holdfast.domain.promotions import Promotion
from holdfast.domain.retraining import Hold, decide_by_hand
from holdfast.domain.tasks import TaskContract, titled
from holdfast.errors import NotFound
from holdfast.ports import House

router = APIRouter()
SHOWN_CAPTURES = 12
SHOWN_ALERTS = 8
SHOWN_RETRAININGS = 5
REPORT_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; connect-src data: blob:; frame-ancestors 'self'"
)
"""A report holds its own scripts and texts of requests: it runs without an origin, so it reaches neither cookies nor the net."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What happened to a task, newest first."""

    alerts: tuple[Alert, ...]
    promotions: tuple[Promotion, ...]
    verdicts: dict[str, Verdict]
    """By id, of the retrainings shown."""
    captures: tuple[Capture, ...]
    labels: dict[str, str]
    """Capture id to its newest label, of the captures shown."""
    onsets: dict[AlertId, datetime]
    """Alert id to when its change began, as near as the monitors say; of the alerts shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorRow:
    """One monitor with its bar."""

    reading: MonitorReading
    share: float
    """Of its threshold, 0..1 and beyond."""
    bar: Markup
    since: datetime | None
    """When the change began, as near as it says; None while nothing speaks for one."""


@router.get("/tasks/{task}")
def show_task(task: str, request: Request, house: HouseOf, settings: SettingsOf) -> HTMLResponse:
    """Everything about one task on one page."""
    facts = facts_of(house, TaskName(task))
    history = _history(house, facts)
    now = house.clock()
    standing = standing_of(facts, now, silence_s=settings.loop.replica_silence_s)
    with house.unit_of_work() as work:
        reports = work.reports.of_task(TaskName(task), 12)
        review = work.reviews.open_of(TaskName(task))
        snapshots = {s.digest: s for s in work.snapshots.of_task(TaskName(task))}
    return page(
        "task.html",
        request,
        facts=facts,
        contract=facts.contract,
        standing=standing,
        living=[r for r in facts.replicas if (now - r.reported_at).total_seconds() <= settings.loop.replica_silence_s],
        anchor=anchor(standing),
        metric=titled(facts.contract.metric),
        labels=labels_words(facts, now),
        plot=score_plot(facts.labelled.points, facts.contract, _marks(facts, history), _spans(facts, history, now)),
        monitors=[_monitor_row(house, facts, r) for r in facts.monitors.readings] if facts.monitors else [],
        reports=reports,
        history=history,
        alerts=history.alerts[:SHOWN_ALERTS],
        held=_held(facts),
        retrainings=facts.retrainings[:SHOWN_RETRAININGS],
        snapshots=snapshots,
        numbers={v.digest: v.number for v in facts.versions},
        versions={v.digest: v for v in facts.versions},
        promotable=_promotable(facts, history, now),
        choices=choices(facts.contract, facts.versions),
        review=review,
        range_of=_range_of,
    )


@router.get("/tasks/{task}/reports/{report_id}")
def show_report(task: str, report_id: str, house: HouseOf, settings: SettingsOf) -> FileResponse:
    """The page that Evidently wrote. Only a file that a record of this task names, and that lies in the reports folder."""
    with house.unit_of_work() as work:
        report = next((r for r in work.reports.of_task(TaskName(task), 1_000) if r.report_id == report_id), None)
    if report is None:
        raise NotFound(kind="report", name=report_id)
    folder = (settings.folder / "reports").resolve()
    path = (settings.folder / Path(report.html_path)).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        raise NotFound(kind="page of report", name=report_id)
    return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY, "X-Frame-Options": "SAMEORIGIN"})


def _history(house: House, facts: TaskFacts) -> History:
    task = facts.contract.task
    with house.unit_of_work() as work:
        alerts, promotions = work.alerts.of_task(task), work.promotions.of_task(task)
        ids = [r.verdict_id for r in facts.retrainings[:SHOWN_RETRAININGS] if r.verdict_id]
        verdicts = {str(i): work.verdicts.get(i) for i in ids}
    captures = tuple(c for c in house.log.newest(task, 2 * SHOWN_CAPTURES) if c.route != "shadow")[-SHOWN_CAPTURES:]
    known = house.log.labelled_since(task, captures[0].seq) if captures else ()
    labels = {str(k.capture.capture_id): k.label.value for k in known}
    onsets = {a.alert_id: at for a in alerts[:SHOWN_ALERTS] if (at := _answered_at(house, task, a.onset_seq)) is not None}
    return History(alerts=alerts, promotions=promotions, verdicts=verdicts, captures=captures[::-1], labels=labels, onsets=onsets)


def _answered_at(house: House, task: TaskName, seq: int) -> datetime | None:
    """When the capture at a position of the log was answered. Positions count every task of the home: a person can use the time alone."""
    found = house.log.after(task, seq - 1, 1) if seq else ()
    return found[0].captured_at if found else None


def choices(contract: TaskContract, versions: Sequence[AdapterVersion]) -> list[str]:
    """Labels that a person can choose from: those of the contract, then those that versions learned beside them, by name.

    An answer that is not among them would be saved as another one by whoever presses Save without a look.
    """
    learned = {label for version in versions for label in version.labels}
    return [*contract.labels, *sorted(learned - set(contract.labels))]


def _marks(facts: TaskFacts, history: History) -> list[Mark]:
    numbers = {v.digest: v.number for v in facts.versions}
    marks = [Mark(at=a.opened_at, kind="alert", text=f"alert: {a.diagnosis.cause}") for a in history.alerts]
    for p in history.promotions:
        word = f"v{numbers.get(p.digest, '?')} " + ("back" if p.kind == "rollback" else "live" if p.live_at else "promoted")
        marks.append(Mark(at=p.live_at or p.created_at, kind=p.kind, text=word))
    return marks


def _spans(facts: TaskFacts, history: History, now: datetime) -> list[Span]:
    """From each request to its end; waiting for a person is not part of it."""
    judged = {r: v.judged_at for r, v in history.verdicts.items()}
    return [
        Span(begin=r.requested_at, end=judged.get(str(r.verdict_id)) or r.ended_at or now, text=f"retraining: {r.reason}")
        for r in facts.retrainings
    ]


def _monitor_row(house: House, facts: TaskFacts, reading: MonitorReading) -> MonitorRow:
    share = max(0.0, reading.log_evidence / reading.log_threshold) if reading.log_threshold > 0 else 0.0
    kind = reading.status.replace(" ", "-")
    bar = share_bar(share, f"{reading.monitor}: {share:.0%} of its alarm threshold", kind)
    return MonitorRow(reading=reading, share=share, bar=bar, since=_answered_at(house, facts.contract.task, reading.onset_seq))


def _promotable(facts: TaskFacts, history: History, now: datetime) -> frozenset[str]:
    """Digests whose newest verdict known here lets them be promoted now; the gate looks again when the button is pressed."""
    champion = facts.assignment.champion if facts.assignment else None
    verdicts: Sequence[Verdict] = list(history.verdicts.values())
    return frozenset(
        v.candidate for v in verdicts if v.outcome == "pass" and v.champion == champion and v.candidate != champion and now < v.expires_at
    )


def _held(facts: TaskFacts) -> Hold | None:
    decision = decide_by_hand(facts.open_alerts)
    return decision if isinstance(decision, Hold) else None


def _range_of(criterion: CriterionResult) -> Markup:
    return range_bar(criterion.lower, criterion.observed, criterion.upper, criterion.threshold)
