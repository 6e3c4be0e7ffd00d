"""Monitors: what each remembers, what it says, and how new captures and labels change it.

These stand over every version of a task: `embedding` (inputs: distance to what was known, and the main directions),
`embedding_shift` (a direction learned from recent traffic), `text` (length, characters, unknown words), `slice_mix`; `novelty`
(inputs and answers: what is like nothing known), `label_mix` and `confidence` (outputs), `quality` (labelled answers: wrong or
not). Each ranks a new row among the calibration rows and earlier traffic, and bets on the ranks. Each is given an equal share of
the task's false-alarm budget, so that on unchanged traffic the probability of any alarm within n events is at most
n / run_length_events, for every n.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.bets import bet_count, bets_on
from holdfast.domain.captures import Capture, LabelledCapture
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.records import canonical
from holdfast.domain.scorers import NAMES, NO_BIN, OF_CAPTURES, Scorers, budget_share, capture_bins, capture_features, error_bins
from holdfast.domain.sights import sight_of
from holdfast.domain.statistics import e_detector, fourier_witness
from holdfast.domain.statistics.conformal import p_values, ties_of
from holdfast.domain.tasks import MonitoringPolicy

MonitorName = Literal["embedding", "embedding_shift", "novelty", "text", "slice_mix", "label_mix", "confidence", "quality"]
MonitorStatus = Literal["not enough data", "quiet", "watching", "alarm"]

MIN_EVENTS = 20
"""Fewer events say nothing."""
MIN_CALIBRATION = 30
"""Fewer calibration rows say nothing."""
SELF_CALIBRATED = frozenset({"slice_mix"})
"""Monitors that rank among their own traffic alone, since a reference has nothing of the kind."""
BINNED_ANEW = frozenset({"embedding", "confidence"})
"""Monitors whose bins were drawn otherwise before ``BINS``: their older states count what is not there any more."""
BINS = 2
"""Which bins a saved state counts in."""
MOST_SKIPPED = 0.5
"""A monitor that could not read a larger share of its events says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorReading:
    """What one monitor says now."""

    monitor: str
    status: MonitorStatus
    log_evidence: float
    """Natural logarithm of the e-detector's value, its highest since the alarm after one; an alarm at `log_threshold`."""
    log_threshold: float
    """Logarithm of A: on unchanged traffic this monitor alarms within n events with probability at most n / A."""
    spent: float = 0.0
    """False alarms of this monitor that were to be expected so far, on unchanged traffic."""
    event_count: int
    onset_seq: int
    """Capture seq at which the change most likely began; 0 while nothing speaks for one."""
    detail: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    """In words: the smallest change it would have found by now, or why it says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSet:
    """All monitors of one version of one task, with how far in the log they have read. Saved in one transaction."""

    task: TaskName
    adapter_digest: AdapterDigest
    capture_cursor: int
    label_cursor: int
    report_cursor: int
    states: Mapping[str, str]
    """Monitor name to its state as canonical JSON; a restart goes on bit for bit."""
    readings: tuple[MonitorReading, ...]
    updated_at: datetime
    version: int = 0
    """Grows by one with each save; a save on an older one is refused, so no event counts twice."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MonitorState:
    """What one monitor remembers."""

    counts: NDArray[np.int64]
    """[components, bins], calibration rows and events ranked so far."""
    weights: NDArray[np.float64]
    """[components, cells], of the learned bet; of `embedding_shift` its sums and witnesses (`fourier_witness.Memory`)."""
    detector: e_detector.Detector
    skipped: int = 0
    """Events that could not be read (not finite, wrong width)."""
    closed: tuple[str, ...] = ()
    """Alerts that a person closed, and after each of which this monitor began anew."""


def log_threshold(policy: MonitoringPolicy, name: str) -> float:
    """At which log evidence a monitor of a task alarms: its share of the task's budget (`budget_share`)."""
    return math.log(policy.run_length_events / budget_share(name))


def start(scorers: Scorers) -> dict[str, MonitorState]:
    """Monitors that have seen no event."""
    return {name: _fresh(scorers, name) for name in NAMES}


def resume(saved: Mapping[str, str], scorers: Scorers) -> dict[str, MonitorState]:
    """Monitors as they were saved; one that was not, or whose bins were drawn anew since, has seen no event."""
    states = start(scorers)
    for name in saved.keys() & states.keys():
        old = load(saved[name])
        fits = name not in BINNED_ANEW or json.loads(saved[name]).get("bins") == BINS
        states[name] = old if fits else dataclasses.replace(states[name], closed=old.closed)
    return states


def observe(
    states: Mapping[str, MonitorState], scorers: Scorers, captures: Sequence[Capture], policy: MonitoringPolicy
) -> dict[str, MonitorState]:
    """The states after more captures of this version, in the order of the log."""
    changed = dict(states)
    for name in OF_CAPTURES:
        if captures and _usable(scorers, name):
            changed[name] = _observed(states[name], scorers, name, captures, policy)
    return changed


def observe_labels(
    states: Mapping[str, MonitorState], scorers: Scorers, labelled: Sequence[LabelledCapture], policy: MonitoringPolicy
) -> dict[str, MonitorState]:
    """The states after more labels on captures of this version, in the order the labels came."""
    if not labelled or not _usable(scorers, "quality"):
        return dict(states)
    events = _Events.of("quality", [row.capture for row in labelled], error_bins([row.wrong for row in labelled]), components=1)
    return {**states, "quality": _advance("quality", states["quality"], events, policy)}


def begin_anew(state: MonitorState, scorers: Scorers, name: str, *, alert_id: str, keep_traffic: bool) -> MonitorState:
    """The monitor after a person closed its alert: without evidence.

    ``keep_traffic`` (the alarm was false) keeps the traffic so far among what is normal; else only the calibration rows are.
    """
    bare = _fresh(scorers, name)
    if keep_traffic and name == "embedding_shift" and scorers.witness is not None:
        memory = fourier_witness.Memory(state.counts, state.weights)
        normal = fourier_witness.accepted(scorers.witness, memory, state.detector.event_count)
        bare = dataclasses.replace(bare, weights=fourier_witness.fresh(scorers.witness, normal).sums)
    elif keep_traffic:
        bare = dataclasses.replace(bare, counts=state.counts)
    return dataclasses.replace(bare, closed=(*state.closed, alert_id))


def readings(states: Mapping[str, MonitorState], scorers: Scorers, policy: MonitoringPolicy) -> tuple[MonitorReading, ...]:
    """What every monitor says now, in the order of ``NAMES``."""
    return tuple(_reading(name, states[name], scorers, policy) for name in NAMES)


def dump(state: MonitorState) -> str:
    """Canonical JSON; read back, the monitor goes on bit for bit."""
    plain: dict[str, Any] = {
        "counts": state.counts.tolist(), "weights": state.weights.tolist(), "detector": e_detector.dump(state.detector),
        "skipped": state.skipped, "closed": list(state.closed), "bins": BINS,
    }  # fmt: skip
    return canonical(plain).decode()


def load(text: str) -> MonitorState:
    """The state that ``dump`` gave."""
    plain = json.loads(text)
    return MonitorState(
        counts=np.array(plain["counts"], dtype=np.int64), weights=np.array(plain["weights"], dtype=np.float64),
        detector=e_detector.load(plain["detector"]), skipped=int(plain["skipped"]), closed=tuple(plain["closed"]),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Events:
    """Rows for one monitor that could be read, and how many could not."""

    bins: NDArray[Any]
    """[n, components]; of `embedding_shift` features [n, width]"""
    ties: NDArray[np.float64]
    """[n, components]"""
    seqs: list[int]
    skipped: int

    @classmethod
    def of(cls, name: str, captures: Sequence[Capture], bins: NDArray[Any], *, components: int) -> _Events:
        good = (np.isfinite(bins) if bins.dtype.kind == "f" else bins != NO_BIN).all(axis=1)
        kept = [capture for capture, fine in zip(captures, good, strict=True) if fine]
        ties = ties_of([f"{c.capture_id}\x1f{name}" for c in kept], components)
        return cls(bins[good], ties, [c.seq for c in kept], int((~good).sum()))


def _fresh(scorers: Scorers, name: str) -> MonitorState:
    counts, components = scorers.calibration[name], len(scorers.calibration[name])
    if name == "embedding_shift":
        sums = np.zeros((0, 0)) if scorers.witness is None else fourier_witness.fresh(scorers.witness).sums
        return MonitorState(counts=counts, weights=sums, detector=e_detector.fresh(components, len(fourier_witness.TILTS)))
    bets = bet_count(name)
    return MonitorState(counts=counts, weights=np.zeros((components, e_detector.CELLS)), detector=e_detector.fresh(components, bets))


def _usable(scorers: Scorers, name: str) -> bool:
    """Whether the reference can carry this monitor: enough calibration rows, and a score that is not constant."""
    if name in SELF_CALIBRATED:
        return True
    return bool(scorers.calibration[name][0].sum() >= MIN_CALIBRATION and all(len(e) > 0 for e in scorers.edges[name]))


def _observed(state: MonitorState, scorers: Scorers, name: str, captures: Sequence[Capture], policy: MonitoringPolicy) -> MonitorState:
    """The state of one monitor of the inputs or outputs after more captures."""
    components = len(state.counts)
    if name != "embedding_shift":
        return _advance(name, state, _Events.of(name, captures, capture_bins(scorers, name, captures), components=components), policy)
    assert scorers.witness is not None, "a monitor without a scorer is not fed"
    events = _Events.of(name, captures, capture_features(scorers, captures), components=components)
    memory, detector = fourier_witness.advance(
        scorers.witness, fourier_witness.Memory(state.counts, state.weights), state.detector,
        (events.bins, events.ties, events.seqs), log_threshold(policy, name),
    )  # fmt: skip
    skipped = state.skipped + events.skipped
    return dataclasses.replace(state, counts=memory.counts, weights=memory.sums, detector=detector, skipped=skipped)


def _advance(name: str, state: MonitorState, events: _Events, policy: MonitoringPolicy) -> MonitorState:
    skipped = state.skipped + events.skipped
    if not events.seqs:
        return dataclasses.replace(state, skipped=skipped)
    ranked = [p_values(c, b, t) for c, b, t in zip(state.counts, events.bins.T, events.ties.T, strict=True)]
    p = np.column_stack([one[0] for one in ranked])  # [n, components]
    bets, weights = bets_on(name, p, events.bins, state.counts, state.weights)
    detector = e_detector.advance(state.detector, bets, events.seqs, log_threshold(policy, name))
    counts = np.stack([one[1] for one in ranked])
    return dataclasses.replace(state, counts=counts, weights=weights, detector=detector, skipped=skipped)


def _reading(name: str, state: MonitorState, scorers: Scorers, policy: MonitoringPolicy) -> MonitorReading:
    detector, threshold = state.detector, log_threshold(policy, name)
    status = _status(name, state, usable=_usable(scorers, name), threshold=threshold)
    onset = detector.onset_seq if detector.alarm_seq else e_detector.onset_of(detector.cusum, detector.start)
    detail = {"calibration_rows": float(scorers.calibration[name][0].sum()), "skipped": float(state.skipped)}
    if name == "quality" and detector.event_count:
        detail |= _error_detail(state, scorers)
    seen, note = sight_of(name, scorers, detector.event_count, threshold) if _usable(scorers, name) else ({}, "")
    return MonitorReading(
        spent=detector.spent,
        monitor=name, status=status, log_evidence=max(detector.evidence, 0.0) if detector.event_count else 0.0,
        log_threshold=threshold, event_count=detector.event_count, onset_seq=onset if status in ("watching", "alarm") else 0,
        detail=detail | seen | ({"alarm_seq": float(detector.alarm_seq)} if detector.alarm_seq else {}),
        note=_missing(name, state, scorers) if status == "not enough data" else note,
    )  # fmt: skip


def _status(name: str, state: MonitorState, *, usable: bool, threshold: float) -> MonitorStatus:
    detector = state.detector
    if detector.alarm_seq:
        return "alarm"
    seen = detector.event_count + state.skipped
    if not usable or _too_few(name, state) or _constant(name, state) or state.skipped > MOST_SKIPPED * seen:
        return "not enough data"
    return "watching" if detector.evidence > threshold / 2 else "quiet"


def _too_few(name: str, state: MonitorState) -> bool:
    return state.detector.event_count < MIN_EVENTS + (MIN_CALIBRATION if name in SELF_CALIBRATED else 0)


def _constant(name: str, state: MonitorState) -> bool:
    """Whether a monitor that has its own traffic alone to go by has seen but one value in it."""
    return name in SELF_CALIBRATED and bool(np.count_nonzero(state.counts[0]) < 2)


def _missing(name: str, state: MonitorState, scorers: Scorers) -> str:
    """Why a monitor has not enough data."""
    rows = int(scorers.calibration[name][0].sum())
    if name not in SELF_CALIBRATED and rows < MIN_CALIBRATION:
        return f"the reference has {rows} rows it could rank among, {MIN_CALIBRATION} are needed"
    if not _usable(scorers, name):
        return "the reference's training rows are all alike"
    if state.skipped > MOST_SKIPPED * (state.detector.event_count + state.skipped):
        return f"{state.skipped:,} events could not be read" + (": they have no slices" if name == "slice_mix" else "")
    if _too_few(name, state):
        return f"{state.detector.event_count} events are too few"
    return "all events have the same slices"


def _error_detail(state: MonitorState, scorers: Scorers) -> dict[str, float]:
    before = scorers.calibration["quality"][0]
    since = state.counts[0] - before
    rates = {"error_rate_reference": before[1] / max(1, before.sum()), "error_rate_since": since[1] / max(1, since.sum())}
    return {name: float(rate) for name, rate in rates.items()}
