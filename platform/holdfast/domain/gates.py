"""Gates: the criteria a candidate must meet, and the verdict on it.

A verdict passes only when every criterion passes, so the chance that a candidate passes which misses any one of them is at
most the policy's alpha, with no division among the criteria (an intersection-union test: Berger, 1982). Failing is the other
way round for slices, of which one is enough, so there alpha is divided by their number (Bonferroni). Whatever cannot be
decided, because rows are too few, missing or not finite, is `need more`, which never passes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.answers import labels_in, row_score
from holdfast.domain.curation import alike_to_sealed
from holdfast.domain.datasets import SnapshotRow
from holdfast.domain.ids import AdapterDigest, SnapshotDigest, TaskName, VerdictId, derive
from holdfast.domain.retraining import HoldoutScores
from holdfast.domain.statistics.confidence import Interval, interval
from holdfast.domain.tasks import METRIC_WORDS, Metric, PromotionPolicy, RetrainingPolicy, Rung, TaskContract

Outcome = Literal["pass", "fail", "need more"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionResult:
    """One criterion with what it was decided from. ``observed`` lies in ``lower .. upper`` at the policy's error rate."""

    name: str
    outcome: Outcome
    observed: float | None
    lower: float | None
    upper: float | None
    threshold: float
    row_count: int
    rows_needed: int = 0
    """How many more rows may settle it, when the outcome is `need more`."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The gate's answer on one candidate, bound to its digest, the evaluation rows and the policy."""

    verdict_id: VerdictId
    task: TaskName
    candidate: AdapterDigest
    champion: AdapterDigest | None
    snapshot_digest: SnapshotDigest
    policy_digest: str
    outcome: Outcome
    criteria: tuple[CriterionResult, ...]
    slices: tuple[CriterionResult, ...] = ()
    """Per true label (or field), for reading; a slice fails the verdict only when its loss is sure."""
    judged_at: datetime
    expires_at: datetime

    @property
    def reason(self) -> str:
        """The criteria that keep it from passing, or that it passed."""
        open_ones = [c.reason for c in self.criteria if c.outcome != "pass"]
        return "; ".join(open_ones) or "every criterion is met"


MIN_SLICE_ROWS = 10
"""A true label with fewer held-out rows is not looked at by itself."""
RUNG_ALPHA = 0.05
"""Error rate of the choice between the rungs; the gate judges the chosen one anyway."""
MOST_ROWS_NEEDED = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Holdout:
    """Held-out rows in an order that depends on nothing but their ids, with how right each was in the task's metric: 0..1, [n] each."""

    rows: tuple[SnapshotRow, ...]
    candidate: NDArray[np.float64]
    champion: NDArray[np.float64] | None

    @property
    def gain(self) -> NDArray[np.float64]:
        """Candidate minus champion per row: -1..1."""
        assert self.champion is not None
        return self.candidate - self.champion

    def where(self, **fields: str) -> NDArray[np.bool_]:
        """Mask [n] of the rows with these field values."""
        return np.array([all(getattr(r, name) == value for name, value in fields.items()) for r in self.rows], dtype=bool)

    def by_label(self) -> dict[str, NDArray[np.bool_]]:
        """True label to the mask [n] of the rows whose truth holds it, in order of name."""
        held = [frozenset(labels_in(row.label)) for row in self.rows]
        names = sorted(frozenset[str]().union(*held))
        return {name: np.array([name in labels for labels in held], dtype=bool) for name in names}


def judge(
    contract: TaskContract, *, rows: Sequence[SnapshotRow], candidate: HoldoutScores, champion: HoldoutScores | None,
    snapshot_digest: SnapshotDigest, policy_digest: str, now: datetime, sealed: Sequence[str] = (),
) -> Verdict:  # fmt: skip
    """The verdict on a candidate. Pure: the same inputs give the same verdict.

    Args:
        contract: its floor and promotion policy are the conditions.
        rows: of the snapshot; scores are of those held out, and the others may not be nearly the same as one of them.
        candidate: what it answered on every held-out row.
        champion: the same of the present champion; None for a first version.
        snapshot_digest: of ``rows``.
        policy_digest: ``digest_of(contract)``.
        now: the instant of the verdict.
        sealed: texts held out for other versions of the task, which this one may not have trained on either.
    """
    policy = contract.promotion
    problem = _problem(rows, candidate, champion)
    criteria = [_integrity(problem, rows, len(alike_to_sealed(rows, sealed)))]
    slices: tuple[CriterionResult, ...] = ()
    if problem is None:
        held = _holdout(rows, candidate, champion, contract.metric)
        criteria.append(_floor(contract, held))
        if champion is not None:
            slices = _slices(policy, held)
            criteria += [_not_worse(policy, held), _better(policy, held), _none_left_behind(policy, slices)]
    champion_digest = champion.digest if champion else None
    return Verdict(
        verdict_id=VerdictId(derive("ver", contract.task, candidate.digest, champion_digest, snapshot_digest, policy_digest)),
        task=contract.task, candidate=candidate.digest, champion=champion_digest, snapshot_digest=snapshot_digest,
        policy_digest=policy_digest, outcome=_joined(criteria), criteria=tuple(criteria), slices=slices,
        judged_at=now, expires_at=now + timedelta(seconds=policy.verdict_ttl_s),
    )  # fmt: skip


def pick_rung(
    policy: RetrainingPolicy, head: HoldoutScores, lora: HoldoutScores | None, rows: Sequence[SnapshotRow], metric: Metric = "accuracy"
) -> Rung:
    """The rung that becomes the candidate: what the contract names, else the head unless LoRA is surely better on the held-out rows."""
    if lora is None or policy.rung == "head":
        return "head"
    if policy.rung == "lora":
        return "lora"
    if _problem(rows, lora, head) is not None:
        return "head"
    gain = interval(_holdout(rows, lora, head, metric).gain, alpha=_sides(RUNG_ALPHA), low=-1.0)
    return "lora" if gain is not None and gain.lower > 0 else "head"


def _joined(criteria: Sequence[CriterionResult]) -> Outcome:
    outcomes = {c.outcome for c in criteria}
    if "fail" in outcomes:
        return "fail"
    return "need more" if "need more" in outcomes else "pass"


def _problem(rows: Sequence[SnapshotRow], *scores: HoldoutScores | None) -> str | None:
    """Why the scores do not belong to the held-out rows; None when they do."""
    wanted = sorted(row.row_id for row in rows if row.split == "holdout")
    if not wanted:
        return "no row is held out"
    for one in scores:
        if one is None:
            continue
        if sorted(one.row_ids) != wanted:
            return f"{one.digest[:19]} was not scored on exactly the {len(wanted)} held-out rows"
        if not len(one.row_ids) == len(one.predictions) == len(one.confidences):
            return f"the scores of {one.digest[:19]} have columns of unequal length"
        if not all(math.isfinite(c) and 0.0 <= c <= 1.0 for c in one.confidences):
            return f"{one.digest[:19]} gave a confidence that is not a number in 0..1"
    return None


def _holdout(rows: Sequence[SnapshotRow], candidate: HoldoutScores, champion: HoldoutScores | None, metric: Metric) -> _Holdout:
    held = sorted((r for r in rows if r.split == "holdout"), key=lambda r: hashlib.sha256(f"{r.row_id}".encode()).digest())
    return _Holdout(
        rows=tuple(held), candidate=_right(held, candidate, metric), champion=_right(held, champion, metric) if champion else None
    )


def _right(rows: Sequence[SnapshotRow], scores: HoldoutScores, metric: Metric) -> NDArray[np.float64]:
    said = dict(zip(scores.row_ids, scores.predictions, strict=True))
    return np.array([row_score(said[row.row_id], row.label, metric) for row in rows])


def _integrity(problem: str | None, rows: Sequence[SnapshotRow], alike_count: int) -> CriterionResult:
    count = sum(row.split == "holdout" for row in rows)
    leak = f"{alike_count} row(s) that it trained on are held-out rows, or nearly; freeze the data again and train on that"
    fine = "the same held-out rows were answered by all, with finite numbers, and none of them was trained on"
    return CriterionResult(
        name="integrity", outcome="fail" if alike_count else "pass" if problem is None else "need more", observed=None, lower=None,
        upper=None, threshold=0.0, row_count=count, reason=leak if alike_count else problem or fine,
    )  # fmt: skip


def _floor(contract: TaskContract, held: _Holdout) -> CriterionResult:
    recent = held.where(period="recent")
    on_recent = held.champion is not None and recent.sum() >= contract.promotion.min_holdout_rows
    values = held.candidate[recent] if on_recent else held.candidate
    where = "recent" if on_recent else "all"
    return _criterion(
        "quality floor",
        values,
        contract.floor,
        contract.promotion,
        what=f"{METRIC_WORDS[contract.metric]} on {where} held-out rows",
        low=0.0,
    )


def _not_worse(policy: PromotionPolicy, held: _Holdout) -> CriterionResult:
    gain = held.gain[held.where(period="past")]
    return _criterion("not worse on past traffic", gain, -policy.margin, policy, what="gain on past rows", low=-1.0)


def _better(policy: PromotionPolicy, held: _Holdout) -> CriterionResult:
    recent = held.where(period="recent")
    gain = held.gain[recent] if recent.any() else held.gain
    what = "gain on recent rows" if recent.any() else "gain on all rows (none is recent)"
    return _criterion("better where it hurt", gain, 0.0, policy, what=what, low=-1.0)


def _slices(policy: PromotionPolicy, held: _Holdout) -> tuple[CriterionResult, ...]:
    big = {label: mask for label, mask in held.by_label().items() if mask.sum() >= MIN_SLICE_ROWS}
    alpha = _sides(policy.alpha / max(1, len(big)))
    return tuple(
        _decide(label, interval(held.gain[mask], alpha=alpha, low=-1.0), -policy.margin, what=f"gain on rows of {label!r}")
        for label, mask in big.items()
    )


def _none_left_behind(policy: PromotionPolicy, slices: Sequence[CriterionResult]) -> CriterionResult:
    lost = [s for s in slices if s.outcome == "fail"]
    worst = min(slices, key=lambda s: s.observed or 0.0, default=None)
    names = ", ".join(s.name for s in lost)
    return CriterionResult(
        name="no slice left behind", outcome="fail" if lost else "pass", observed=worst.observed if worst else None,
        lower=worst.lower if worst else None, upper=worst.upper if worst else None, threshold=-policy.margin,
        row_count=sum(s.row_count for s in slices),
        reason=f"surely worse on {names}" if lost else f"none of {len(slices)} labels is surely worse",
    )  # fmt: skip


def _criterion(
    name: str, values: NDArray[np.float64], threshold: float, policy: PromotionPolicy, *, what: str, low: float
) -> CriterionResult:
    if len(values) >= policy.min_holdout_rows:
        return _decide(name, interval(values, alpha=_sides(policy.alpha), low=low), threshold, what=what)
    return CriterionResult(
        name=name, outcome="need more", observed=float(values.mean()) if len(values) else None, lower=None, upper=None,
        threshold=threshold, row_count=len(values), rows_needed=policy.min_holdout_rows - len(values),
        reason=f"{what}: only {len(values)} rows, {policy.min_holdout_rows} are the least",
    )  # fmt: skip


def _sides(alpha: float) -> float:
    """The level of an interval of which one bound decides: each of its two bounds then errs with probability at most alpha."""
    return min(0.98, 2 * alpha)


def _decide(name: str, found: Interval | None, threshold: float, *, what: str) -> CriterionResult:
    """Pass when the whole interval lies above the threshold (for a loss or a floor: at it), fail when it lies below."""
    assert found is not None, "called with rows"
    passed = found.lower >= threshold if threshold != 0.0 else found.lower > 0.0
    failed = found.upper < threshold if threshold != 0.0 else found.upper <= 0.0
    outcome: Outcome = "pass" if passed else "fail" if failed else "need more"
    words = {"pass": "meets", "fail": "misses", "need more": "may or may not meet"}[outcome]
    return CriterionResult(
        name=name, outcome=outcome, observed=found.mean, lower=found.lower, upper=found.upper, threshold=threshold,
        row_count=found.row_count, rows_needed=_rows_needed(found, threshold) if outcome == "need more" else 0,
        reason=f"{what} {found.mean:.3f} ({found.lower:.3f} to {found.upper:.3f}, {found.row_count} rows) {words} {threshold:g}",
    )  # fmt: skip


def _rows_needed(found: Interval, threshold: float) -> int:
    """How many more rows may bring the bound to the threshold: widths shrink with the root of the row count."""
    distance = abs(found.mean - threshold)
    half = (found.mean - found.lower) if found.mean >= threshold else (found.upper - found.mean)
    if distance * math.sqrt(MOST_ROWS_NEEDED) <= half:
        return MOST_ROWS_NEEDED
    return max(1, min(MOST_ROWS_NEEDED, math.ceil(found.row_count * ((half / distance) ** 2 - 1))))
