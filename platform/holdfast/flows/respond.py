"""Respond: monitors in alarm open one alert per cause; the alert is diagnosed, and the action that fits is taken or held.

Everything is written in one transaction with its ledger rows; only then is the bell rung. Doing it again changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from holdfast.domain.alerts import LIVING, Alert, fingerprint_of
from holdfast.domain.captures import Capture, LabelledCapture
from holdfast.domain.diagnosis import NOT_MENDED, Case, Diagnosis, diagnose, family_of
from holdfast.domain.ids import AdapterDigest, AlertId, RetrainingId, TaskName, derive
from holdfast.domain.monitors import MonitorReading, MonitorSet
from holdfast.domain.records import Plain
from holdfast.domain.retraining import ENDED, Go, Hold, Retraining, decide
from holdfast.domain.review import LabelRequest, absorb, by_chance, rows_for
from holdfast.domain.review_evidence import act_on, asks_again, evidence_of, why_over
from holdfast.domain.tasks import TaskContract
from holdfast.flows import review
from holdfast.flows.serving_alert import respond_to_refusals
from holdfast.flows.watch import of_version, of_version_labelled, scorers_of
from holdfast.ports import House, UnitOfWork

RECENT_ROWS = 2_000
"""Newest captures since the change that a diagnosis looks at."""
NEW_ROWS = 50
"""Captures that must have come before an open alert is diagnosed again."""
DIAGNOSED_AGAIN = 10
"""The same for labels."""
HELD = "retraining held: "
REVIEWED = "; review: "


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What one response begins with."""

    champion: AdapterDigest
    contract: TaskContract
    known_labels: frozenset[str]
    seen: MonitorSet | None
    alerts: tuple[Alert, ...]
    asked: LabelRequest | None
    """The open review of the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    """What is to be written: an alert, how many labels there are since the change, and the review of the alert."""

    alert: Alert
    labels_count: int
    review: LabelRequest | None = None
    """As it is now, or as it is to be opened."""


def respond(house: House, task: TaskName) -> Alert | None:
    """Open or keep up the alert of a task and start what it asks for; None while nothing is in alarm."""
    scene = _load(house, task)
    if scene is None:
        return None
    _resolve_older(house, scene)
    if scene.asked is not None:
        review.tend(house, scene.asked, scene.champion)
    refused = respond_to_refusals(house, task)
    if refused is not None:
        return refused
    alarms = _alarms(scene.seen)
    if not alarms:
        return None
    finding = _find(house, scene, alarms)
    if finding is None:
        return None
    return _apply(house, scene, finding)


def _load(house: House, task: TaskName) -> _Scene | None:
    with house.unit_of_work() as uow:
        assignment = uow.assignments.get(task)
        if assignment is None:
            return None
        version = uow.versions.find(assignment.champion)
        contract = uow.contracts.get(task)
        return _Scene(
            champion=assignment.champion,
            contract=contract,
            known_labels=frozenset(version.labels if version else contract.labels),
            seen=uow.monitors.get(task, assignment.champion),
            alerts=uow.alerts.of_task(task),
            asked=uow.reviews.open_of(task),
        )


def _alarms(seen: MonitorSet | None) -> list[MonitorReading]:
    """Readings in alarm, the first to alarm first."""
    found = [r for r in seen.readings if r.status == "alarm"] if seen else []
    return sorted(found, key=lambda r: r.detail.get("alarm_seq", 0.0))


def _resolve_older(house: House, scene: _Scene) -> None:
    """An alert is about one version; when another became champion, it is over."""
    older = [a for a in scene.alerts if a.adapter_digest != scene.champion and a.state in LIVING]
    if not older:
        return
    now = house.clock()
    with house.unit_of_work() as uow:
        for alert in (uow.alerts.get(a.alert_id) for a in older):
            if alert.state in LIVING:
                uow.alerts.put(replace(alert, state="resolved", resolved_at=now, updated_at=now, response="another version answers now"))
                body: dict[str, Plain] = {"alert": alert.alert_id, "reason": "the champion changed", "champion": scene.champion}
                uow.ledger.append(at=now, kind="alert.resolved", task=alert.task, actor="loop", body=body)
        uow.commit()


def _find(house: House, scene: _Scene, alarms: Sequence[MonitorReading]) -> _Finding | None:
    """The alert as it is now; None when a person closed it and the monitors have not begun anew yet."""
    mine = [a for a in scene.alerts if a.adapter_digest == scene.champion]
    living = next((a for a in mine if a.state in LIVING), None)
    onset = living.onset_seq if living else alarms[0].onset_seq
    task = scene.contract.task
    since = of_version_labelled(house.log.labelled_since(task, onset), scene.champion)
    diagnosis = _diagnosis(house, scene, alarms, onset, [row for row in since if by_chance(row)], living=living)
    names = tuple(r.monitor for r in alarms)
    if living is not None:
        alert = replace(living, monitors=names, diagnosis=diagnosis)
    else:
        alert = _opened(house, scene, alarms, diagnosis)
        if any(a.alert_id == alert.alert_id for a in mine):
            return None
    return _reviewed(house, scene, _Finding(alert=alert, labels_count=len(since)), since)


def _reviewed(house: House, scene: _Scene, finding: _Finding, labelled: Sequence[LabelledCapture]) -> _Finding:
    """The finding with its alert's review, and the action that the evidence asks for; a new review where labels lack and none is open."""
    alert = finding.alert
    with house.unit_of_work() as uow:
        earlier = uow.reviews.of_task(alert.task)
    mine = [r for r in earlier if r.alert_id == alert.alert_id]
    found = mine[0] if mine else None
    if not any(r.state == "open" for r in earlier) and _wants_review(scene, finding, found):
        found = review.plan(
            house, alert.task, scene.champion, onset_seq=alert.onset_seq, row_count=rows_for(scene.contract.retraining),
            alert_id=alert.alert_id, asked_by="loop",
        ) or found  # fmt: skip
    if found is None:
        return finding
    found = absorb(found, labelled) if found.state == "open" else found
    evidence = [evidence_of(found, scene.contract), *(evidence_of(r, scene.contract) for r in mine if r.request_id != found.request_id)]
    shown = next((e for e in evidence if e.outcome == "hurts"), evidence[0])  # what one review has shown, another does not take back
    diagnosis = act_on(alert.diagnosis, shown)
    return replace(finding, alert=replace(alert, diagnosis=diagnosis), review=found)


def _wants_review(scene: _Scene, finding: _Finding, found: LabelRequest | None) -> bool:
    alert = finding.alert
    if found is None:
        return alert.diagnosis.action == "ask for labels"
    recent_count = int(alert.diagnosis.evidence.get("recent_count", 0.0))
    return asks_again(found, scene.contract, recent_count=recent_count, labels_count=finding.labels_count)


def _opened(house: House, scene: _Scene, alarms: Sequence[MonitorReading], diagnosis: Diagnosis) -> Alert:
    task, now = scene.contract.task, house.clock()
    fingerprint = fingerprint_of(task, scene.champion, family_of(diagnosis.cause))
    event_seq = int(alarms[0].detail.get("alarm_seq", 0.0))
    return Alert(
        alert_id=AlertId(derive("alr", fingerprint, event_seq)), task=task, adapter_digest=scene.champion, fingerprint=fingerprint,
        monitors=tuple(r.monitor for r in alarms), state="open", opened_at=now, updated_at=now, event_seq=event_seq,
        onset_seq=alarms[0].onset_seq, diagnosis=diagnosis,
    )  # fmt: skip


def _diagnosis(
    house: House, scene: _Scene, alarms: Sequence[MonitorReading], onset: int, labelled: Sequence[LabelledCapture], *, living: Alert | None
) -> Diagnosis:
    task, digest = scene.contract.task, scene.champion
    newest = of_version(house.log.newest(task, RECENT_ROWS), digest)
    recent, before = [c for c in newest if c.seq >= onset], [c for c in newest if c.seq < onset]
    alarmed = frozenset(r.monitor for r in alarms)
    if living is not None and alarmed == frozenset(living.monitors):
        known = living.diagnosis.evidence
        few_labels = len(labelled) - known.get("labelled_count", 0.0) < DIAGNOSED_AGAIN
        if few_labels and len(recent) - known.get("recent_count", 0.0) < NEW_ROWS:
            return living.diagnosis
    case = Case(
        reference=house.adapters.reference(digest), scorers=scorers_of(house.adapters, digest), recent=recent, labelled=labelled,
        known_labels=scene.known_labels, alarmed=alarmed, input_alarm_acts=scene.contract.monitoring.input_alarm_acts,
        before=before, labelled_before=_labelled_among(house, task, before), onset_seq=onset,
    )  # fmt: skip
    found = diagnose(case)
    counts = {"recent_count": float(len(recent)), "labelled_count": float(len(labelled))}
    kept = living.diagnosis.exclusions if living is not None else ()  # rows stay excluded when the break is over
    exclusions = tuple(dict.fromkeys((*kept, *found.exclusions)))
    return replace(found, evidence={**found.evidence, **counts}, exclusions=exclusions)


def _labelled_among(house: House, task: TaskName, captures: Sequence[Capture]) -> list[LabelledCapture]:
    known = {c.capture_id for c in captures}
    return [r for r in house.log.labelled_since(task, captures[0].seq) if r.capture.capture_id in known] if captures else []


def _apply(house: House, scene: _Scene, finding: _Finding) -> Alert:
    now = house.clock()
    with house.unit_of_work() as uow:
        before = next((a for a in uow.alerts.of_task(finding.alert.task) if a.alert_id == finding.alert.alert_id), None)
        if before is not None and before.state not in LIVING:
            return before  # a person closed it meanwhile
        alert = replace(finding.alert, state=before.state if before else "open")
        _note_alert(uow, before, alert, now)
        started, response = _act(uow, scene, replace(finding, alert=alert), now)
        if response.startswith(HELD) and _same(before.response if before else "") != _same(response):
            _note(uow, alert, "retraining.held", now, reason=response)
        alert = replace(alert, response=response + _keep_review(uow, scene, finding, now, running=started is not None))
        if alert != before:
            alert = replace(alert, updated_at=now)
            uow.alerts.put(alert)
        uow.commit()
    if started is not None:
        house.doorbell.ring("holdfast.advance_retraining", started)
    return alert


def _keep_review(uow: UnitOfWork, scene: _Scene, finding: _Finding, now: datetime, *, running: bool) -> str:
    """Open the alert's review, fill in labels that came, or close it when it has said enough; what it says, in words."""
    request = finding.review
    if request is None:
        return ""
    found = evidence_of(request, scene.contract)
    stored = next((r for r in uow.reviews.of_task(request.task) if r.request_id == request.request_id), None)
    if stored is None:
        review.note_opened(uow, request, now)
    if stored is None or (request.state == "open" and request.version == stored.version and request != stored):
        uow.reviews.put(request)
    because, current = why_over(request, found, mending=running), uow.reviews.get(request.request_id)
    if current.state == "open" and because is not None:
        review.end(uow, current, now, state="closed", because=because, actor="loop")
    return f"{REVIEWED}{found.words}"


def _note_alert(uow: UnitOfWork, before: Alert | None, alert: Alert, now: datetime) -> None:
    if before is None:
        monitors: list[Plain] = list(alert.monitors)
        _note(uow, alert, "alert.opened", now, monitors=monitors, event_seq=alert.event_seq, onset_seq=alert.onset_seq)
    if before is None or before.diagnosis.cause != alert.diagnosis.cause or before.diagnosis.action != alert.diagnosis.action:
        found = alert.diagnosis
        evidence: dict[str, Plain] = dict(found.evidence)
        _note(uow, alert, "alert.diagnosed", now, cause=found.cause, action=found.action, sentence=found.sentence, evidence=evidence)


def _note(uow: UnitOfWork, alert: Alert, kind: str, now: datetime, **body: Plain) -> None:
    uow.ledger.append(at=now, kind=kind, task=alert.task, actor="loop", body={"alert": alert.alert_id, **body})


def _act(uow: UnitOfWork, scene: _Scene, finding: _Finding, now: datetime) -> tuple[RetrainingId | None, str]:
    """The retraining that was started now, if one was, and what the loop does about the alert in words."""
    alert, earlier = finding.alert, uow.retrainings.of_task(finding.alert.task)
    running = next((r for r in earlier if r.state not in ENDED and r.alert_id == alert.alert_id), None)
    if running is not None:
        return None, f"retraining {running.retraining_id} is under way"
    if alert.diagnosis.action != "retrain":
        why = NOT_MENDED.get(alert.diagnosis.cause)
        return None, f"no retraining: the action is to {alert.diagnosis.action}" + (f"; {why}" if why else "")
    mine = [r for r in earlier if r.alert_id == alert.alert_id]
    decision = _decide(scene, finding, earlier, now)
    if isinstance(decision, Hold):
        return None, f"{HELD}{decision.reason}"
    wanted = Retraining(
        retraining_id=RetrainingId(derive("rtr", alert.alert_id, len(mine))), task=alert.task, alert_id=alert.alert_id,
        reason=f"{alert.diagnosis.cause}: {alert.diagnosis.sentence}", requested_by="loop", requested_at=now,
        since_seq=alert.onset_seq, due_at=now, champion_digest=scene.champion,
    )  # fmt: skip
    stored = uow.retrainings.request(wanted)
    _note(uow, alert, "retraining.requested", now, retraining=stored.retraining_id, labels_count=finding.labels_count)
    return stored.retraining_id, f"retraining {stored.retraining_id} is under way"


def _decide(scene: _Scene, finding: _Finding, earlier: Sequence[Retraining], now: datetime) -> Go | Hold:
    policy = scene.contract.retraining
    if policy.mode == "suggest":
        return Hold(reason="the contract only lets it be suggested; `holdfast retrain` starts it")
    return decide(policy, labels_count=finding.labels_count, earlier=earlier, now=now, alert_id=finding.alert.alert_id)


def _same(reason: str) -> str:
    """A reason without its numbers, its ids and what a review says, so that a count that grows is not a new reason."""
    return re.sub(r"rtr_\w+|\d+", "#", reason.split(REVIEWED, maxsplit=1)[0])
