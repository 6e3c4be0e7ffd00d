"""Serving alert: replicas that refuse the champion, or on which it failed its proof. It opens without any monitor, and the version
before takes over where nobody else answers.

The half of `respond` that looks at the fleet instead of the traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from holdfast.domain.alerts import Alert, fingerprint_of
from holdfast.domain.diagnosis import Diagnosis, family_of
from holdfast.domain.ids import AlertId, TaskName, derive
from holdfast.domain.routing import Assignment, ReplicaReport
from holdfast.flows import promote
from holdfast.ports import House, UnitOfWork

REPORT_AGE_S = 15.0
"""A replica's word counts for so long."""


def respond_to_refusals(house: House, task: TaskName) -> Alert | None:
    """Open one alert when a living replica refuses the champion or saw it fail its proof; None while none does.

    Rolls back where the policy is automatic and every replica holds the version before, unless the champion is live and a replica
    holds it, proved: then that one answers, and the alert waits for a person. Doing it again changes nothing.
    """
    now = house.clock()
    with house.unit_of_work() as uow:
        assignment, contract = uow.assignments.get(task), uow.contracts.get(task)
        reports = uow.replicas.live(now - timedelta(seconds=REPORT_AGE_S))
        if assignment is None or not _troubled(assignment, reports):
            return None
        alert = _kept_or_opened(house, uow, assignment, reports)
        route = uow.assignments.table().routes.get(task)
        uow.commit()
    previous, champion = assignment.previous, assignment.champion
    ready = previous is not None and all(previous in report.ready for report in reports)
    is_live = route is not None and route.generation >= assignment.generation
    answered = is_live and any(champion in report.ready for report in reports)
    if alert.state == "open" and contract.promotion.mode == "automatic" and ready and not answered:
        promote.roll_back(house, task, actor="loop", reason=alert.diagnosis.sentence, expected_generation=assignment.generation)
    return alert


def _troubled(assignment: Assignment, reports: Sequence[ReplicaReport]) -> list[str]:
    """What replicas say against the champion, one text per replica that does."""
    digest = assignment.champion
    return [(r.refused.get(digest) or r.lapsed[digest]) for r in reports if digest in r.refused or digest in r.lapsed]


def _kept_or_opened(house: House, uow: UnitOfWork, assignment: Assignment, reports: tuple[ReplicaReport, ...]) -> Alert:
    task, digest, now = assignment.task, assignment.champion, house.clock()
    fingerprint = fingerprint_of(task, digest, family_of("serving regression"))
    alert_id = AlertId(derive("alr", fingerprint, assignment.generation))
    for known in uow.alerts.of_task(task):
        if known.alert_id == alert_id or (known.fingerprint == fingerprint and known.state in ("open", "acknowledged")):
            return known
    said = _troubled(assignment, reports)
    deed = "refuse the champion" if any(digest in report.refused for report in reports) else "loaded the champion anew, it failed its proof"
    sentence = f"{len(said)} of {len(reports)} replicas {deed}: {said[0]}"
    seq = house.log.last_seq(task)
    alert = Alert(
        alert_id=alert_id, task=task, adapter_digest=digest, fingerprint=fingerprint, monitors=("serving",), state="open",
        opened_at=now, updated_at=now, event_seq=seq, onset_seq=seq,
        diagnosis=Diagnosis(cause="serving regression", action="roll back", sentence=sentence),
    )  # fmt: skip
    uow.alerts.put(alert)
    body = {"alert": alert_id, "generation": assignment.generation, "sentence": sentence}
    uow.ledger.append(at=now, kind="alert.opened", task=task, actor="loop", body=body)
    return alert
