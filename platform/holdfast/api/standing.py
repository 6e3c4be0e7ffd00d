"""How a task stands: the facts read once, and what they mean in words: a state, a reason, the loop's step, the one thing to press."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from holdfast.api.series import Labelled, RecentQuality, SeriesCache, quality_of
from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.alerts import Alert
from holdfast.domain.gates import Verdict
from holdfast.domain.ids import TaskName
from holdfast.domain.monitors import MonitorSet
from holdfast.domain.retraining import ENDED, Retraining
from holdfast.domain.routing import Assignment, ReplicaReport, Route
from holdfast.domain.tasks import TaskContract
from holdfast.ports import House

State = Literal["needs you", "healing", "at risk", "starting", "unknown", "healthy"]
"""`starting`: its first version is made or loaded; nothing answers yet, so nothing heals."""
URGENCY: tuple[State, ...] = ("needs you", "healing", "at risk", "starting", "unknown", "healthy")
"""Order of the rows of the fleet."""
Deed = Literal["promote", "roll back", "retrain", "label", "bring data", "look"]
_series = SeriesCache()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """What is known of one task, read at one moment."""

    contract: TaskContract
    assignment: Assignment | None
    route: Route | None
    champion: AdapterVersion | None
    versions: tuple[AdapterVersion, ...]
    monitors: MonitorSet | None
    open_alerts: tuple[Alert, ...]
    retrainings: tuple[Retraining, ...]
    """Newest first."""
    verdict: Verdict | None
    """Of the newest retraining."""
    snapshot_count: int
    replicas: tuple[ReplicaReport, ...]
    capture_count: int
    label_count: int
    last_seq: int
    newest_capture_at: datetime | None
    labelled: Labelled
    quality: RecentQuality

    @property
    def running(self) -> Retraining | None:
        """The retraining under way."""
        return next((r for r in self.retrainings if r.state not in ENDED), None)

    @property
    def lag(self) -> int | None:
        """Positions of the log that the monitors have not read yet; None when they have read nothing."""
        return None if self.monitors is None else max(0, self.last_seq - self.monitors.capture_cursor)

    @property
    def may_ask(self) -> bool:
        """Whether a retraining may be asked for: none is under way, or one that only waits for a person."""
        return self.running is None or self.running.state == "judged"

    @property
    def warming(self) -> bool:
        """Whether the data plane does not follow the assignment yet."""
        return self.assignment is not None and (self.route is None or self.route.generation < self.assignment.generation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a person needs to know of a task in ten seconds."""

    state: State
    why: str
    step: str
    """What the loop is doing, in two or three words."""
    deed: Deed
    """The one thing to press."""
    deed_text: str


def facts_of(house: House, task: TaskName) -> TaskFacts:
    """Read everything about one task: the database in one short transaction, then the log. Raises NotFound."""
    with house.unit_of_work() as work:
        contract = work.contracts.get(task)
        assignment = work.assignments.get(task)
        versions = work.versions.of_task(task)
        champion = next((v for v in versions if assignment and v.digest == assignment.champion), None)
        retrainings = work.retrainings.of_task(task)
        candidate = retrainings[0].candidate_digest if retrainings else None
        verdict = work.verdicts.newest_of(candidate) if candidate else None
        alerts = tuple(a for a in work.alerts.of_task(task) if a.state in ("open", "acknowledged"))
        monitors = work.monitors.get(task, assignment.champion) if assignment else None
        route = work.assignments.table().routes.get(task)
        replicas = work.replicas.live(house.clock() - timedelta(days=1))
        snapshot_count = len(work.snapshots.of_task(task))
    last_seq, label_count = house.log.last_seq(task), house.log.label_count(task)
    labelled = _series.labelled(house, task, contract.metric)
    newest = house.log.newest(task, 1)
    return TaskFacts(
        contract=contract,
        assignment=assignment,
        route=route,
        champion=champion,
        versions=versions,
        monitors=monitors,
        open_alerts=alerts,
        retrainings=retrainings,
        verdict=verdict,
        snapshot_count=snapshot_count,
        replicas=replicas,
        capture_count=house.log.count(task),
        label_count=label_count,
        last_seq=last_seq,
        newest_capture_at=newest[-1].captured_at if newest else None,
        labelled=labelled,
        quality=quality_of(labelled, assignment.champion if assignment else None),
    )


def standing_of(facts: TaskFacts, now: datetime, *, silence_s: float) -> Standing:
    """The state of a task. What needs a person comes first, then what heals itself; unknown is never healthy."""
    return (
        _serving_trouble(facts, now, silence_s)
        or _awaiting_decision(facts, now)
        or _under_way(facts)
        or _first_version(facts)
        or _alerted(facts)
        or _quality(facts)
    )


def _serving_trouble(facts: TaskFacts, now: datetime, silence_s: float) -> Standing | None:
    if facts.assignment is None:
        return None
    if facts.assignment.stuck_reason:
        why = f"The new champion cannot be loaded: {facts.assignment.stuck_reason}. The version before it goes on answering."
        return Standing(state="needs you", why=why, step="warming, stuck", deed="roll back", deed_text="Roll back")
    alive = [r for r in facts.replicas if r.reported_at >= now - timedelta(seconds=silence_s)]
    if not alive and facts.replicas:
        silent_s = (now - max(r.reported_at for r in facts.replicas)).total_seconds()
        why = f"No replica has reported for {duration(silent_s)}; nobody may be answering."
        return Standing(state="needs you", why=why, step="no replica", deed="look", deed_text="Look at serving")
    return None


def _awaiting_decision(facts: TaskFacts, now: datetime) -> Standing | None:
    """A candidate that passed its gate and waits for a person: a first version always does, others as the contract says."""
    newest, verdict = facts.retrainings[0] if facts.retrainings else None, facts.verdict
    if newest is None or verdict is None or newest.state in ENDED or verdict.outcome != "pass" or now >= verdict.expires_at:
        return None
    current = facts.assignment.champion if facts.assignment else None
    moves_by_itself = facts.contract.promotion.mode == "automatic" and newest.champion_digest is not None
    if moves_by_itself or verdict.champion != current or verdict.candidate == current:
        return None
    number = next((v.number for v in facts.versions if v.digest == verdict.candidate), None)
    name = f"v{number}" if number else "the candidate"
    before = f"{sentence(facts.open_alerts[0].diagnosis.sentence)} " if facts.open_alerts else ""
    why = f"{before}The gate passed {name}; it waits for you."
    return Standing(state="needs you", why=why, step="judged", deed="promote", deed_text=f"Promote {name}")


def _under_way(facts: TaskFacts) -> Standing | None:
    running = facts.running
    if running is None and not facts.warming:
        return None
    alert = facts.open_alerts[0] if facts.open_alerts else None
    state: State = "starting" if facts.route is None else "healing"
    look = "See progress" if state == "starting" else "See evidence"
    if running is None:
        why = sentence(alert.diagnosis.sentence) if alert else "A new champion is being loaded and proved on the replicas."
        return Standing(state=state, why=why, step="warming", deed="look", deed_text=look)
    steps = {"requested": "training soon", "training": f"training {running.progress:.0%}", "trained": "judging", "judged": "promoting"}
    why = sentence(alert.diagnosis.sentence if alert else running.reason)
    if running.error:
        why = f"{why} Last try: {sentence(running.error)}"
    return Standing(state=state, why=why, step=steps.get(running.state, running.state), deed="look", deed_text=look)


def _first_version(facts: TaskFacts) -> Standing | None:
    if facts.assignment is not None:
        return None
    newest = facts.retrainings[0] if facts.retrainings else None
    if newest is not None and newest.state in ("failed", "refused"):
        why = f"The last training ended as {newest.state}: {_ending(newest, facts.verdict)}."
        return Standing(state="needs you", why=why, step="held", deed="retrain", deed_text="Train again")
    if facts.snapshot_count:
        return Standing(
            state="needs you", why="Data is there, but no version was trained yet.", step="no version", deed="retrain", deed_text="Train"
        )
    return Standing(
        state="needs you", why="There is no data and no version yet.", step="no data", deed="bring data", deed_text="Bring data"
    )


def _alerted(facts: TaskFacts) -> Standing | None:
    if not facts.open_alerts:
        return None
    alert = facts.open_alerts[0]
    why, policy = sentence(alert.diagnosis.sentence), facts.contract.retraining
    tried = next((r for r in facts.retrainings if r.alert_id == alert.alert_id), None)
    if tried is not None and tried.state in ("failed", "refused"):
        why = f"{why} The retraining ended as {tried.state}: {_ending(tried, facts.verdict)}."
        return Standing(state="needs you", why=why, step="held", deed="look", deed_text="Look at the verdict")
    if alert.diagnosis.action == "roll back":
        return Standing(state="needs you", why=why, step="alert", deed="roll back", deed_text="Roll back")
    if alert.diagnosis.action == "ask for labels":
        return Standing(state="needs you", why=why, step="waiting for labels", deed="label", deed_text="Label examples")
    if alert.diagnosis.action == "retrain":
        if policy.mode == "automatic":
            return Standing(state="at risk", why=why, step="waiting for labels", deed="label", deed_text="Label examples")
        return Standing(state="needs you", why=why, step="alert", deed="retrain", deed_text="Start retraining")
    return Standing(state="needs you", why=why, step="alert", deed="look", deed_text="Look at the inputs")


def _quality(facts: TaskFacts) -> Standing:
    score, floor = facts.quality.overall, facts.contract.floor
    statuses = {r.status for r in facts.monitors.readings} if facts.monitors else set()
    if facts.capture_count == 0:
        return Standing(state="unknown", why="No request has come yet.", step="live", deed="look", deed_text="Send traffic")
    if score is None:
        why = f"{facts.capture_count:,} captures, but none answered by this version has a label: quality is unknown."
        state: State = "at risk" if "alarm" in statuses else "unknown"
        return Standing(state=state, why=why, step="watching", deed="label", deed_text="Label examples")
    if score.upper < floor:
        why = f"Quality is clearly below its floor of {floor:.0%}, and no alert explains it yet."
        return Standing(state="needs you", why=why, step="watching", deed="retrain", deed_text="Start retraining")
    if score.value < floor or "alarm" in statuses:
        return Standing(state="at risk", why=_doubt(floor, statuses), step="watching", deed="label", deed_text="Label examples")
    if score.lower < floor:
        why = f"Above its floor of {floor:.0%}, though {score.row_count} labels leave room for doubt. No monitor alarms."
        return Standing(state="healthy", why=why, step="watching", deed="look", deed_text="See evidence")
    return Standing(
        state="healthy",
        why=f"Clearly above its floor of {floor:.0%}; no monitor alarms.",
        step="watching",
        deed="look",
        deed_text="See evidence",
    )


def _doubt(floor: float, statuses: Collection[str]) -> str:
    return (
        "A monitor alarms; its diagnosis is not written yet."
        if "alarm" in statuses
        else f"Quality now lies below its floor of {floor:.0%}, within doubt."
    )


def _ending(retraining: Retraining, verdict: Verdict | None) -> str:
    if retraining.error:
        return retraining.error.rstrip(".")
    if verdict is not None and verdict.verdict_id == retraining.verdict_id:
        return verdict.reason
    return "no reason was noted"


def sentence(words: str) -> str:
    """Words as a sentence that another may follow.

    >>> sentence("most often sales answered as billing"), sentence("Answers went wrong.")
    ('Most often sales answered as billing.', 'Answers went wrong.')
    """
    words = words.strip()
    return words[:1].upper() + words[1:] + ("" if words[-1:] in ".!?" else ".")


def duration(seconds: float) -> str:
    """A span in words that fit a table.

    >>> duration(4.2), duration(190), duration(7300), duration(200_000)
    ('4 s', '3 min', '2 h', '2 d')
    """
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size * (1 if unit == "min" else 2):
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
