"""Drill: plant a change into a shadow copy of recent traffic and say whether and when the monitors would see it.

The captures, their labels and the champion's answers are real; the states of the monitors begin anew in every replicate and are kept
nowhere. A drill reads the database and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from holdfast.domain import drill as planting
from holdfast.domain import monitors
from holdfast.domain.captures import Capture, LabelledCapture
from holdfast.domain.diagnosis import Case, diagnose
from holdfast.domain.drill import Change, Drill, DrillPlan, DrillRow, Sighting, capture_of
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.scorers import Scorers
from holdfast.domain.tasks import TaskContract
from holdfast.domain.windows import ReferenceWindow
from holdfast.errors import DataInvalid, NotFound
from holdfast.flows.backtest_stage import ask
from holdfast.flows.respond import NEW_ROWS
from holdfast.flows.watch import of_version, scorers_of
from holdfast.ports import AdapterStore, CaptureLog, InferenceEngine, UnitOfWork

POOL_STREAMS = 2
"""Streams' worth of captures that are read at most: orders differ enough, and every text of them is answered anew per change."""
READ_ROWS = 20_000
"""Newest captures of a task among which those of the champion are looked for."""
Say = Callable[[int, int], None]
"""Hears how many steps of how many are done."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrillGround:
    """What a drill works with."""

    unit_of_work: Callable[[], UnitOfWork]
    log: CaptureLog
    adapters: AdapterStore
    engine: InferenceEngine


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scene:
    digest: AdapterDigest
    contract: TaskContract
    known_labels: frozenset[str]
    reference: ReferenceWindow
    scorers: Scorers
    pool: Sequence[LabelledCapture | Capture]


def drill(
    ground: DrillGround, task: TaskName, plan: DrillPlan, say: Say = lambda done, total: None, *, strangers: Sequence[str] = ()
) -> Drill:
    """Plant every change of the plan in every share, and look.

    Args:
        strangers: texts of the new class; without any they are made up.

    Raises:
        RequestInvalid: on the plan.
        NotFound: the task has no champion.
        DataInvalid: the champion answered too few captures; says how many are needed.
        AdapterRefused: the champion cannot be loaded.
    """
    planting.check_plan(plan)
    scene = _load(ground, task, plan)
    ground.engine.load(scene.digest, ground.adapters.folder(scene.digest))
    rows: list[DrillRow] = []
    total = len(plan.changes) * len(plan.shares) * plan.replicates
    for change in plan.changes:
        changed = planting.planted(scene.pool, change, _answers(ground.engine, scene, plan, change, strangers))
        for share in plan.shares:
            sightings = []
            for replicate in range(plan.replicates):
                sightings.append(_look(scene, planting.stream(scene.pool, changed, plan, share=share, replicate=replicate), plan))
                say(len(rows) * plan.replicates + len(sightings), total)
            rows.append(planting.summed_up(change, share, sightings))
    return Drill(
        task=task, adapter_digest=scene.digest, capture_count=len(scene.pool),
        labelled_count=sum(isinstance(row, LabelledCapture) for row in scene.pool), events=plan.events, quiet_events=plan.quiet_events,
        seed=plan.seed, run_length_events=scene.contract.monitoring.run_length_events, rows=tuple(rows),
        smallest=planting.smallest_seen(rows),
    )  # fmt: skip


def _load(ground: DrillGround, task: TaskName, plan: DrillPlan) -> _Scene:
    with ground.unit_of_work() as uow:
        contract, assignment = uow.contracts.get(task), uow.assignments.get(task)
        if assignment is None:
            raise NotFound(kind="champion of task", name=task)
        version = uow.versions.find(assignment.champion)
    digest = assignment.champion
    captures = of_version(ground.log.newest(task, READ_ROWS), digest)[-POOL_STREAMS * plan.captures_needed :]
    if len(captures) < plan.captures_needed:
        problem = f"the champion answered {len(captures)} captures, {plan.captures_needed} are needed"
        raise DataInvalid(
            source=f"captures of {task}", problem=problem, place=f"{plan.quiet_events} quiet and {plan.events} changed events",
            remedy="wait for more traffic, or give a smaller --events or --quiet.",
        )  # fmt: skip
    labelled = {row.capture.capture_id: row for row in ground.log.labelled_since(task, captures[0].seq)}
    return _Scene(
        digest=digest, contract=contract, known_labels=frozenset(version.labels if version else contract.labels),
        reference=ground.adapters.reference(digest), scorers=scorers_of(ground.adapters, digest),
        pool=[labelled.get(capture.capture_id, capture) for capture in captures],
    )  # fmt: skip


def _answers(engine: InferenceEngine, scene: _Scene, plan: DrillPlan, change: Change, strangers: Sequence[str]) -> Mapping[int, Capture]:
    """The champion's captures of the changed texts, by index in the pool; a text that stays the same stays as it was captured."""
    if change not in planting.OF_TEXTS:
        return {}
    captures = [capture_of(row) for row in scene.pool]
    texts = [planting.changed_text(c.text, change, seed=plan.seed, index=n, strangers=strangers) for n, c in enumerate(captures)]
    moved = [n for n, capture in enumerate(captures) if texts[n] != capture.text]
    found = dict(enumerate(captures))
    for n, answer in zip(moved, ask(engine, scene.digest, [texts[n] for n in moved]), strict=True):
        embedding = np.asarray(answer.embedding, dtype=np.float16)
        found[n] = replace(captures[n], text=texts[n], prediction=answer.prediction, embedding=embedding)
    return found


def _look(scene: _Scene, rows: Sequence[LabelledCapture | Capture], plan: DrillPlan) -> Sighting:
    """Show one stream to monitors that have seen nothing. A label is taken to come with its event."""
    policy, labelled = scene.contract.monitoring, [row for row in rows if isinstance(row, LabelledCapture)]
    states = monitors.observe(monitors.start(scene.scorers), scene.scorers, [capture_of(row) for row in rows], policy)
    states = monitors.observe_labels(states, scene.scorers, labelled, policy)
    alarms = {r.monitor: r for r in monitors.readings(states, scene.scorers, policy) if r.status == "alarm"}
    if not alarms:
        return Sighting(delay=None)
    first = min(alarms, key=lambda name: alarms[name].detail["alarm_seq"])
    at = int(alarms[first].detail["alarm_seq"])
    if at <= plan.quiet_events:
        return Sighting(delay=None, false_alarm=True)
    by_then = frozenset(name for name, reading in alarms.items() if reading.detail["alarm_seq"] <= at + NEW_ROWS)
    since = [row for row in rows if alarms[first].onset_seq <= capture_of(row).seq <= at + NEW_ROWS]
    case = Case(
        reference=scene.reference, scorers=scene.scorers, recent=[capture_of(row) for row in since],
        labelled=[row for row in since if isinstance(row, LabelledCapture)], known_labels=scene.known_labels, alarmed=by_then,
        input_alarm_acts=policy.input_alarm_acts,
    )  # fmt: skip
    return Sighting(delay=at - plan.quiet_events, monitor=first, cause=diagnose(case).cause)
