"""Review: open a request for labels, take its answers, close it. What `respond` does when an alert lacks evidence of lost quality.

An answer becomes an ordinary label of its capture, with the source `review`: trainings learn from it like from any other. The request
keeps it as well, with the weight that makes it evidence (`domain.review_evidence`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from holdfast.domain import review
from holdfast.domain.alerts import LIVING
from holdfast.domain.captures import Capture, Label
from holdfast.domain.ids import AdapterDigest, AlertId, CaptureId, ReviewId, TaskName, derive
from holdfast.domain.records import Plain, digest_of
from holdfast.domain.review import LabelRequest, RequestState
from holdfast.domain.review_choice import choose
from holdfast.domain.review_csv import read_answers
from holdfast.domain.review_evidence import ReviewEvidence, evidence_of
from holdfast.domain.tasks import TaskContract
from holdfast.errors import BadInput, Conflict, DataInvalid, NotFound, RequestInvalid
from holdfast.flows.record import canonical_label, record_labels
from holdfast.flows.watch import of_version, scorers_of
from holdfast.ports import House, UnitOfWork

POPULATION_ROWS = 5_000
"""Captures of one period that rows are drawn from, at most."""
REACHES = (5_000, 50_000, 500_000)
"""How far before a change its control rows are looked for, in positions of the log, until there are enough."""
ENOUGH_BEFORE = 500
TRIES = 5
"""Times a change is made anew because another reviewer saved first."""
SHOWN_PROBLEMS = 5


def ask(house: House, task: TaskName, *, row_count: int, actor: str) -> LabelRequest:
    """Open a request by hand: on the change of the task's living alert, or, where there is none, on the newest traffic.

    Raises NotFound (task, champion, or no capture to ask about), RequestInvalid, Conflict while a request of the task is open.
    """
    if not review.LEAST_ROWS <= row_count <= review.MOST_ROWS:
        problem = f"{row_count} rows are asked for; {review.LEAST_ROWS} to {review.MOST_ROWS} can be"
        raise RequestInvalid(place="row_count", problem=problem, remedy="give a number in that range")
    now = house.clock()
    with house.unit_of_work() as uow:
        uow.contracts.get(task)
        assignment = uow.assignments.get(task)
        alert = next((a for a in uow.alerts.of_task(task) if a.state in LIVING), None)
        if uow.reviews.open_of(task) is not None:
            raise Conflict(problem=f"A review of task {task} is open already.")
    if assignment is None:
        raise NotFound(kind="champion of task", name=task)
    wanted = plan(
        house, task, assignment.champion, onset_seq=alert.onset_seq if alert else 0, row_count=row_count,
        alert_id=alert.alert_id if alert else None, asked_by=actor,
    )  # fmt: skip
    if wanted is None:
        raise NotFound(kind="capture of the champion of task", name=task)
    with house.unit_of_work() as uow:
        uow.reviews.put(wanted)
        note_opened(uow, wanted, now)
        uow.commit()
        return uow.reviews.get(wanted.request_id)


def plan(
    house: House, task: TaskName, digest: AdapterDigest, *, onset_seq: int, row_count: int, alert_id: AlertId | None, asked_by: str
) -> LabelRequest | None:
    """A request that is not stored yet, with the labels that its rows have already; None when no capture can be asked about."""
    now = house.clock()
    since = [c for c in of_version(house.log.newest(task, POPULATION_ROWS), digest) if c.seq >= onset_seq]
    before = _before(house, task, digest, onset_seq) if onset_seq else []
    if not since:
        return None
    request_id = ReviewId(derive("rev", task, alert_id or "", asked_by, now.isoformat(), len(since)))
    rows = choose(since, before, scorers_of(house.adapters, digest), row_count=row_count, seed=request_id)
    fresh = LabelRequest(
        request_id=request_id, task=task, adapter_digest=digest, alert_id=alert_id, asked_by=asked_by, asked_at=now,
        expires_at=now + review.LIFE, onset_seq=onset_seq, since_count=len(since), before_count=len(before), rows=rows,
    )  # fmt: skip
    return review.absorb(fresh, house.log.labelled_since(task, min(row.seq for row in rows)))


def _before(house: House, task: TaskName, digest: AdapterDigest, onset_seq: int) -> Sequence[Capture]:
    found: list[Capture] = []
    for reach in REACHES:
        captures = house.log.after(task, max(0, onset_seq - 1 - reach), POPULATION_ROWS)
        found = [c for c in of_version(captures, digest) if c.seq < onset_seq]
        if len(found) >= ENOUGH_BEFORE or reach >= onset_seq:
            break
    return found


def answer(house: House, request_id: ReviewId, capture_id: CaptureId, value: str, *, by: str) -> LabelRequest:
    """Take the right answer to one row, in any form that `labelling.read_answer` reads.

    The label is stored first, so a request never counts an answer that trainings do not see; cut off in between, the row is asked again.
    Raises NotFound, Conflict (closed), DataInvalid, LabelUnknown, StorageRefused.
    """
    return _answer_all(house, request_id, [(capture_id, value)], by=by)


def import_answers(house: House, request_id: ReviewId, table: str, *, by: str) -> tuple[LabelRequest, int]:
    """Take the answers of a CSV (columns `capture_id` and `label`, empty labels left out); the request, and how many were given.

    All or none. Raises NotFound, Conflict, DataInvalid that names every line that cannot be used (the first few of many).
    """
    request, contract = _load(house, request_id)
    texts = house.log.texts(request.task, [row.capture_id for row in request.rows])
    good: list[tuple[CaptureId, str]] = []
    problems: list[tuple[int, str]] = []
    for line, given_id, value in read_answers(table):
        known = given_id if given_id in texts else CaptureId(given_id.removeprefix("'"))
        try:
            request.row(known)
            good.append((known, canonical_label(contract, value, texts.get(known, ""), source="of the label")))
        except (BadInput, NotFound) as error:
            problems.append((line, error.message))
    if problems:
        listing = "; ".join(f"line {line}: {words}" for line, words in problems[:SHOWN_PROBLEMS])
        more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise DataInvalid(
            source="of the table", problem=f"{len(problems)} of its lines cannot be: {listing}{more}", place=f"line {problems[0][0]}",
            remedy="correct these lines and send it again; nothing of it was stored",
        )  # fmt: skip
    return _answer_all(house, request_id, good, by=by), len(good)


def skip(house: House, request_id: ReviewId, capture_id: CaptureId, *, by: str) -> LabelRequest:
    """Leave a row out. Raises NotFound, Conflict."""
    now = house.clock()
    return _change(house, request_id, lambda request: review.skip(request, capture_id, by=by, at=now))


def take_back(house: House, request_id: ReviewId) -> LabelRequest:
    """Undo the newest answer or skip. Its label stays in the log until the row is answered anew. Raises NotFound, Conflict."""
    return _change(house, request_id, review.take_back)


def close(house: House, request_id: ReviewId, *, actor: str, reason: str) -> LabelRequest:
    """Close by hand; closing what is closed changes nothing. Raises NotFound."""
    with house.unit_of_work() as uow:
        request = uow.reviews.get(request_id)
        if request.state == "open":
            end(uow, request, house.clock(), state="closed", because=reason, actor=actor)
            uow.commit()
        return uow.reviews.get(request_id)


def look(house: House, request: LabelRequest) -> ReviewEvidence:
    """What the answers of a request say now."""
    with house.unit_of_work() as uow:
        contract = uow.contracts.get(request.task)
    return evidence_of(request, contract)


def tend(house: House, request: LabelRequest, champion: AdapterDigest) -> None:
    """Close an open request that has lost its purpose: it is old, another version answers, or its alert is over."""
    now = house.clock()
    with house.unit_of_work() as uow:
        current = uow.reviews.get(request.request_id)
        alert = uow.alerts.get(current.alert_id) if current.alert_id else None
        if current.state != "open":
            return
        if now >= current.expires_at:
            end(uow, current, now, state="expired", because="it was open for too long", actor="loop")
        elif current.adapter_digest != champion:
            end(uow, current, now, state="closed", because="another version answers now", actor="loop")
        elif alert is not None and alert.state not in LIVING:
            end(uow, current, now, state="closed", because=f"its alert is closed ({alert.state})", actor="loop")
        uow.commit()


def note_opened(uow: UnitOfWork, request: LabelRequest, now: datetime) -> None:
    """The ledger row of a request that was put in this transaction."""
    body: dict[str, Plain] = {
        "review": request.request_id, "alert": request.alert_id, "adapter": request.adapter_digest, "onset_seq": request.onset_seq,
        "since_count": request.since_count, "before_count": request.before_count, "row_count": len(request.rows),
        "rows": digest_of(request.rows),
    }  # fmt: skip
    uow.ledger.append(at=now, kind="review.opened", task=request.task, actor=request.asked_by, body=body)


def end(uow: UnitOfWork, request: LabelRequest, now: datetime, *, state: RequestState, because: str, actor: str) -> None:
    """Close a request with its ledger row; the caller commits."""
    found = evidence_of(request, uow.contracts.get(request.task))
    uow.reviews.put(review.close(request, state=state, because=because, at=now))
    body: dict[str, Plain] = {
        "review": request.request_id, "state": state, "reason": because, "outcome": found.outcome, "evidence": found.words,
        "answered_count": request.answered_count, "skipped_count": request.skipped_count, "answers": digest_of(request.rows),
    }  # fmt: skip
    uow.ledger.append(at=now, kind=f"review.{state}", task=request.task, actor=actor, body=body)


def _answer_all(house: House, request_id: ReviewId, given: Sequence[tuple[CaptureId, str]], *, by: str) -> LabelRequest:
    request, contract = _load(house, request_id)
    texts = house.log.texts(request.task, [capture_id for capture_id, _ in given]) if contract.kind == "extraction" else {}
    read = [(i, canonical_label(contract, value, texts.get(i, ""), source=f"of the label of {i}")) for i, value in given]
    now = house.clock()

    def change(request: LabelRequest) -> LabelRequest:
        for capture_id, value in read:
            request = review.answer(request, capture_id, value, by=by, at=now)
        return request

    planned = change(request)
    sources = {row.capture_id: review.source_of(row) for row in planned.rows if row != request.row(row.capture_id)}
    labels = [Label(capture_id=i, task=request.task, value=value, source=sources[i], labelled_at=now) for i, value in read if i in sources]
    record_labels(house, request.task, labels)
    return _change(house, request_id, change, request)


def _load(house: House, request_id: ReviewId) -> tuple[LabelRequest, TaskContract]:
    with house.unit_of_work() as uow:
        request = uow.reviews.get(request_id)
        return request, uow.contracts.get(request.task)


def _change(
    house: House, request_id: ReviewId, change: Callable[[LabelRequest], LabelRequest], known: LabelRequest | None = None
) -> LabelRequest:
    """Save what a pure change makes of the request: of ``known``, which was just read, or of what is stored when somebody saved first."""
    for left in reversed(range(TRIES)):
        with house.unit_of_work() as uow:
            request = known or uow.reviews.get(request_id)
            changed, known = change(request), None
            if changed == request:
                return request
            try:
                uow.reviews.put(changed)
                uow.commit()
            except Conflict:
                if not left:
                    raise
                continue
            return replace(changed, version=request.version + 1)
    raise AssertionError("the last try returns or raises")
