"""Backtest: replay a dated, labelled history through the flows of the loop, with a stepped clock and no process but this one.

Three arms answer every event. The *loop* is the real one: record, watch, respond, retrain, judge, promote, roll out. The
*frozen* arm is its first version, never changed. The *bound* is trained anew before each period on every label so far, those
included that the loop never gets; no loop that retrains less often on fewer labels should be expected to pass it by much.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import numpy as np

from holdfast.domain import backtest as arithmetic
from holdfast.domain.alerts import Alert
from holdfast.domain.answers import label_counts
from holdfast.domain.backtest import AlertMark, Backtest, Outcome, Period, PromotionMark, ReplayPlan, RetrainingMark, Totals
from holdfast.domain.captures import Capture, Label
from holdfast.domain.comparison import Replay
from holdfast.domain.datasets import Example, HistoryRow
from holdfast.domain.ids import AdapterDigest, CaptureId
from holdfast.domain.retraining import ENDED, Retraining
from holdfast.domain.routing import ReplicaReport, choose, versions_wanted
from holdfast.domain.tasks import TaskContract
from holdfast.errors import GateRefused, TrainingFailed
from holdfast.flows import freeze, promote, record, respond, retrain, roll_out, watch
from holdfast.flows.backtest_decisions import DecisionLog
from holdfast.flows.backtest_stage import BoundArm, SharedWork, Stage, ask, right, taught_alike
from holdfast.ports import Question

ACTOR = "backtest"
PATIENCE = timedelta(minutes=1)
"""A retraining that is due later than this from now waits for the history to go on."""
Say = Callable[[int, int], None]
"""Hears how many events of how many are done."""


def backtest(
    stage: Stage, contract: TaskContract, history: Sequence[HistoryRow], plan: ReplayPlan, say: Say = lambda done, total: None
) -> Backtest:
    """Replay ``history``; what the loop did and how the arms fared.

    Raises RequestInvalid on the plan, DataInvalid on the history, GateRefused when the first version does not pass its gate.
    """
    return replay(stage, contract, history, plan, say, shared=SharedWork()).result


def replay(
    stage: Stage, contract: TaskContract, history: Sequence[HistoryRow], plan: ReplayPlan, say: Say, *, shared: SharedWork
) -> Replay:
    """As ``backtest``, with every decision and event. What ``shared`` holds already is not answered again."""
    arithmetic.check_plan(plan)
    began, warmup = time.monotonic(), arithmetic.warmup_rows(history, plan)
    loop, bound = LoopArm(stage, contract, plan), BoundArm(stage, contract)
    first = loop.begin(history[:warmup])
    periods, outcomes, alike = [], [], taught_alike(contract)
    for start, stop in arithmetic.cut(warmup, len(history), plan.period_count):
        rows = history[start:stop]
        frozen_right = shared.of(
            ("frozen", first, contract.metric, start),
            lambda rows=rows: right(ask(stage.engine, first, [row.text for row in rows]), rows, contract.metric),  # type: ignore[misc]
        )
        bound_right = shared.of(("bound", *alike, start), lambda at=start, rows=rows: bound.answer(history[:at], rows))  # type: ignore[misc]
        loop_right = loop.play(rows, lambda done, at=start: say(at + done - warmup, len(history) - warmup))  # type: ignore[misc]
        outcomes += [Outcome(*o) for o in zip(loop_right, frozen_right, bound_right, strict=True)]
        periods.append(arithmetic.period_of(rows, outcomes[start - warmup :]))
    result = _result(loop, contract, history, plan, periods, seconds=time.monotonic() - began)
    return Replay(result=result, decisions=tuple(loop.decisions.found), outcomes=tuple(outcomes), cpu_seconds=loop.cpu_seconds)


def _result(
    loop: LoopArm, contract: TaskContract, history: Sequence[HistoryRow], plan: ReplayPlan, periods: Sequence[Period], *, seconds: float
) -> Backtest:
    warmup = arithmetic.warmup_rows(history, plan)
    alerts, retrainings, promotions = loop.marks()
    of_loop, of_frozen, of_bound = arithmetic.accuracies(periods)
    totals = Totals(
        rows=len(history), warmup_rows=warmup, events=len(history) - warmup, labels_known=loop.labels_known,
        labels_new=len(_labels(history[warmup:]) - _labels(history[:warmup])),
        metric=contract.metric, accuracy_loop=of_loop, accuracy_frozen=of_frozen, accuracy_bound=of_bound,
        share_of_gap=arithmetic.share_of_gap(of_loop, of_frozen, of_bound), alert_count=len(alerts),
        retraining_count=len(retrainings), promotion_count=len(promotions), rung=contract.retraining.rung,
        run_length_events=contract.monitoring.run_length_events, seconds=round(seconds, 1),
    )  # fmt: skip
    return Backtest(periods=tuple(periods), alerts=alerts, retrainings=retrainings, promotions=promotions, totals=totals)


class LoopArm:
    """The real flows, driven by events instead of by time."""

    def __init__(self, stage: Stage, contract: TaskContract, plan: ReplayPlan) -> None:
        self.house, self.engine, self.clock = stage.house, stage.engine, stage.clock
        self.contract, self.plan, self.task = contract, plan, contract.task
        self.labels_known = 0
        self.cpu_seconds = 0.0
        self.decisions = DecisionLog(stage.house)
        self.first: AdapterDigest | None = None
        self._waiting: list[HistoryRow] = []
        self._seen = 0
        self._opened: dict[str, int] = {}
        self._requested: dict[str, int] = {}
        self._promoted: dict[str, int] = {}

    def begin(self, warmup: Sequence[HistoryRow]) -> AdapterDigest:
        """Train, judge and promote the first version. Raises GateRefused."""
        self.clock.reach(warmup[-1].at)
        with self.house.unit_of_work() as uow:
            uow.contracts.put(self.contract, self.clock())
            uow.commit()
        examples = [Example(text=row.text, label=row.label, source="history") for row in warmup]
        freeze.add_examples(self.house, self.task, examples, actor=ACTOR)
        asked = retrain.request(self.house, self.task, reason="first version", actor=ACTOR, key="first")
        self._requested[asked.retraining_id] = -1
        r = self._advance(asked)
        digest = r.candidate_digest
        if digest is None:
            raise TrainingFailed(key=r.retraining_id, reason=r.error, log="the lines above")
        with self.house.unit_of_work() as uow:
            verdict = uow.verdicts.newest_of(digest)
        if verdict is None or verdict.outcome != "pass":
            raise GateRefused(
                digest=digest,
                task=self.task,
                reason=verdict.reason if verdict else r.error,
                remedy="Give more rows or a larger --warmup-share.",
            )
        self.first = digest
        promotion = promote.promote(self.house, self.task, digest=digest, actor=ACTOR, reason="first version")
        self._promoted[promotion.promotion_id] = -1
        self._settle()
        self.decisions.skip()
        return digest

    def play(self, rows: Sequence[HistoryRow], say: Callable[[int], None]) -> list[float]:
        """Answer the rows in their order and let the loop look after every batch; how right each answer was."""
        flags: list[float] = []
        began = time.process_time()
        for start in range(0, len(rows), self.plan.batch_rows):
            batch = rows[start : start + self.plan.batch_rows]
            self.clock.reach(batch[-1].at)
            flags += self._serve(batch)
            self._deliver(batch[-1].index)
            self._look()
            say(len(flags))
        self.cpu_seconds += time.process_time() - began
        return flags

    def _serve(self, batch: Sequence[HistoryRow]) -> list[float]:
        with self.house.unit_of_work() as uow:
            route = uow.assignments.table().routes[self.task]
        choices = [choose(route, _capture_id(row)) for row in batch]
        answers = self.engine.answer([Question(digest=c.digest, text=row.text) for c, row in zip(choices, batch, strict=True)])
        captures = [
            Capture(
                capture_id=_capture_id(row), task=self.task, text=row.text, prediction=answer.prediction, adapter_digest=choice.digest,
                generation=choice.generation, route=choice.route, captured_at=row.at, latency_ms=0.0,
                embedding=np.asarray(answer.embedding, dtype=np.float16),
            )
            for row, choice, answer in zip(batch, choices, answers, strict=True)
        ]  # fmt: skip
        record.record_captures(self.house.log, captures)
        self._seen = batch[-1].index
        self._waiting += [row for row in batch if arithmetic.becomes_known(row.index, self.plan)]
        return right(answers, batch, self.contract.metric)

    def _deliver(self, newest: int) -> None:
        due = [row for row in self._waiting if row.index + self.plan.label_delay <= newest]
        self._waiting = self._waiting[len(due) :]
        labels = [
            Label(capture_id=_capture_id(row), task=self.task, value=row.label, source="history", labelled_at=self.clock()) for row in due
        ]
        if labels:
            self.labels_known += record.record_labels(self.house, self.task, labels)

    def _look(self) -> None:
        watch.watch(self.house, self.task)
        alert = respond.respond(self.house, self.task)
        if alert is not None:
            self._opened.setdefault(alert.alert_id, self._seen)
        self._settle()
        self.decisions.note(self._seen)

    def _settle(self) -> None:
        """Everything that needs no further event: trainings, verdicts, promotions, and who answers next."""
        with self.house.unit_of_work() as uow:
            running = [r for r in uow.retrainings.of_task(self.task) if r.state not in ENDED]
        for r in running:
            self._requested.setdefault(r.retraining_id, self._seen)
            self._advance(r)
        self._warm()
        with self.house.unit_of_work() as uow:
            for promotion in uow.promotions.of_task(self.task):
                self._promoted.setdefault(promotion.promotion_id, self._seen)

    def _advance(self, r: Retraining) -> Retraining:
        """Step by step until it has ended, or waits for a person; a verdict on a first version is left to ``begin``."""
        while r.state not in ENDED and r.due_at <= self.clock() + PATIENCE:
            if r.state == "judged" and self._is_first(r):
                break
            self.clock.reach(r.due_at)
            retrain.advance(self.house, r.retraining_id, owner=ACTOR)
            with self.house.unit_of_work() as uow:
                r = uow.retrainings.get(r.retraining_id)
        return r

    def _is_first(self, r: Retraining) -> bool:
        with self.house.unit_of_work() as uow:
            return uow.assignments.get(r.task) is None

    def _warm(self) -> None:
        """Be the only replica: load what is wanted, say so, and let the table follow."""
        with self.house.unit_of_work() as uow:
            assignments, table = uow.assignments.all(), uow.assignments.table()
        wanted = versions_wanted(assignments, table)
        for digest in sorted(wanted - self.engine.loaded()):
            self.engine.load(digest, self.house.adapters.folder(digest))
        for digest in self.engine.loaded() - wanted - {self.first}:
            self.engine.unload(digest)
        generation = max((a.generation for a in assignments.values()), default=0)
        report = ReplicaReport(
            replica_id=ACTOR, ready=tuple(sorted(self.engine.loaded())), refused={}, generation=generation, reported_at=self.clock()
        )
        with self.house.unit_of_work() as uow:
            uow.replicas.report(report)
            uow.commit()
        roll_out.roll_out(self.house, silence_s=1.0)

    def marks(self) -> tuple[tuple[AlertMark, ...], tuple[RetrainingMark, ...], tuple[PromotionMark, ...]]:
        """What the loop did, oldest first; the first version is not among it."""
        with self.house.unit_of_work() as uow:
            alerts = tuple(self._alert_mark(a) for a in reversed(uow.alerts.of_task(self.task)))
            asked = [r for r in reversed(uow.retrainings.of_task(self.task)) if self._requested.get(r.retraining_id, 0) >= 0]
            verdicts = {r.retraining_id: uow.verdicts.get(r.verdict_id).outcome for r in asked if r.verdict_id is not None}
            moved = [p for p in reversed(uow.promotions.of_task(self.task)) if self._promoted.get(p.promotion_id, 0) >= 0]
        retrainings = tuple(
            RetrainingMark(
                requested_at=r.requested_at, event_index=self._requested.get(r.retraining_id, self._seen), labels_used=r.labels_used,
                seconds=round(r.train_seconds, 2), verdict=verdicts.get(r.retraining_id, "none"), reason=r.error or r.reason,
            )
            for r in asked
        )  # fmt: skip
        promotions = tuple(
            PromotionMark(at=p.created_at, event_index=self._promoted[p.promotion_id], adapter_digest=p.digest) for p in moved
        )
        return alerts, retrainings, promotions

    def _alert_mark(self, alert: Alert) -> AlertMark:
        return AlertMark(
            at=alert.opened_at, event_index=self._opened.get(alert.alert_id, self._seen), onset_index=self._index_at(alert.onset_seq),
            monitor=", ".join(alert.monitors), diagnosis=alert.diagnosis.cause, sentence=alert.diagnosis.sentence,
        )  # fmt: skip

    def _index_at(self, seq: int) -> int:
        """Position in the history of the capture with that seq, or of the first after it."""
        found = self.house.log.after(self.task, seq - 1, 1)
        return int(found[0].capture_id.removeprefix("event-")) if found else self._seen


def _labels(rows: Sequence[HistoryRow]) -> frozenset[str]:
    return frozenset(label_counts(row.label for row in rows))


def _capture_id(row: HistoryRow) -> CaptureId:
    return CaptureId(f"event-{row.index:09d}")
