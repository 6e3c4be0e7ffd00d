"""What the answers of a review say: the loss since the change and before it, with intervals, and whether it hurts.

Source of the interval: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2023), on importance-weighted
draws (Waudby-Smith, Stark and Ramdas, "RiLACS: risk-limiting audits via confidence sequences", 2021, bet so on audits). It holds at every
answer at once, so a review may stop as soon as it says enough. A row without an answer counts as right for the lower bound and as wrong for
the upper one: nothing is assumed of what people skip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.answers import row_score
from holdfast.domain.diagnosis import Diagnosis
from holdfast.domain.review import LabelRequest, Period, ReviewRow
from holdfast.domain.review_choice import UNIFORM_SHARE
from holdfast.domain.statistics.confidence import Interval, interval
from holdfast.domain.tasks import Metric, TaskContract

ALPHA = 0.05
"""Probability that the intervals of both periods do not hold together, at any number of answers."""
LEAST_LABELS = 10
"""Fewer answered rows since the change are shown but decide nothing."""
MOST_NEEDED = 100_000

Outcome = Literal["hurts", "does not hurt", "more labels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewEvidence:
    """The state of the question whether a change hurts. Losses are 0..1: 1 minus the task's metric, so of accuracy the share of errors."""

    since: Interval | None
    """None while no row of the period is answered."""
    before: Interval | None
    outcome: Outcome
    labels_needed: int
    """About how many labels more may settle it, while the outcome is `more labels`."""
    words: str


def evidence_of(request: LabelRequest, contract: TaskContract) -> ReviewEvidence:
    """What the answers so far say, measured by the contract's floor and by the loss that its promotions tolerate (`margin`)."""
    since = _loss(request, "since", contract.metric)
    before = _loss(request, "before", contract.metric)
    outcome = _outcome(request, since, before, contract)
    needed = _needed(since, before, contract) if outcome == "more labels" else 0
    found = ReviewEvidence(since=since, before=before, outcome=outcome, labels_needed=needed, words="")
    return replace(found, words=_words(request, found, contract))


def allowed_loss(contract: TaskContract) -> float:
    """The loss that the floor tolerates; rounded, so that a loss of exactly that much is not above it."""
    return round(1.0 - contract.floor, 9)


def act_on(diagnosis: Diagnosis, evidence: ReviewEvidence | None) -> Diagnosis:
    """The diagnosis with the action that bought evidence asks for: lost quality is retrained for, quality that holds is not.

    Only an alert that asks for labels is changed: inputs that come broken are never trained in, whatever reviewers say of the answers, and
    neither is a change that has no name.
    """
    if evidence is None or diagnosis.action != "ask for labels" or evidence.outcome == "more labels":
        return diagnosis
    known = {f"review_loss_{name}": found.mean for name, found in (("since", evidence.since), ("before", evidence.before)) if found}
    hurts = evidence.outcome == "hurts"
    if hurts and diagnosis.cause == "undetermined":
        return diagnosis
    return replace(diagnosis, action="retrain" if hurts else "wait", evidence={**diagnosis.evidence, **known})


def why_over(request: LabelRequest, evidence: ReviewEvidence, *, mending: bool) -> str | None:
    """Why the loop closes the review of an alert; None while it should go on.

    Args:
        request: the review.
        evidence: what its answers say.
        mending: whether a retraining of its alert has just been started.
    """
    if mending:
        return "its alert is being mended"
    if evidence.outcome == "does not hurt":
        return evidence.words
    return None if request.open_count else "every row is answered"


def asks_again(request: LabelRequest, contract: TaskContract, *, recent_count: int, labels_count: int) -> bool:
    """Whether an alert whose review is over asks once more: all was answered, it was not enough, and the traffic has doubled since.

    Args:
        request: the newest review of the alert.
        contract: of the task.
        recent_count: captures since the change by now.
        labels_count: of them with a label.
    """
    if request.state == "open" or request.open_count or recent_count < 2 * request.since_count:
        return False
    outcome = evidence_of(request, contract).outcome
    return outcome == "more labels" or (outcome == "hurts" and labels_count < contract.retraining.min_labels)


def _loss(request: LabelRequest, period: Period, metric: Metric) -> Interval | None:
    """The mean loss of all captures of a period, with its confidence sequence; None while no row of it is answered."""
    rows = [row for row in request.rows if row.period == period]
    answered = [row for row in rows if row.value is not None]
    if not answered:
        return None
    drawn = _drawn(rows)
    known = np.array([row.value is not None for row in drawn])
    weights = np.array([row.weight for row in drawn])
    losses = np.array([_row_loss(row, metric) for row in drawn])
    mean = min(1.0, float((weights * losses)[known].mean()))
    lower, upper = _bounds(weights * losses, weights * np.where(known, losses, 1.0), float(weights.max()))
    if len(rows) == (request.since_count if period == "since" else request.before_count):
        least = sum(_row_loss(row, metric) for row in answered) / len(rows)
        most = least + (len(rows) - len(answered)) / len(rows)  # every capture is asked for: only what is not answered is uncertain
        lower, upper, mean = (min(max(value, least), most) for value in (lower, upper, mean))
    return Interval(mean=mean, lower=lower, upper=upper, row_count=len(answered))


def _row_loss(row: ReviewRow, metric: Metric) -> float:
    return 0.0 if row.value is None else 1.0 - row_score(row.said, row.value, metric)


def _drawn(rows: Sequence[ReviewRow]) -> list[ReviewRow]:
    """Rows as they were drawn, a row as often as it was, up to the first that waits behind all answered ones."""
    last = max(row.draws[0] for row in rows if row.value is not None)
    end = min((row.draws[0] for row in rows if row.value is None and row.draws[0] > last), default=None)
    every = sorted(((draw, row) for row in rows for draw in row.draws), key=lambda item: item[0])
    return [row for draw, row in every if end is None or draw < end]


def _bounds(least: NDArray[np.float64], most: NDArray[np.float64], greatest: float) -> tuple[float, float]:
    top = max(1.0 / UNIFORM_SHARE, greatest)  # the bound on every weight is known before any draw; an older request may have had another
    lower, upper = interval(least, alpha=ALPHA / 2, high=top), interval(most, alpha=ALPHA / 2, high=top)
    assert lower is not None and upper is not None, "called with rows"
    return min(1.0, lower.lower), min(1.0, upper.upper)


def _outcome(request: LabelRequest, since: Interval | None, before: Interval | None, contract: TaskContract) -> Outcome:
    if since is None or since.row_count < LEAST_LABELS:
        return "more labels"
    allowed, margin = allowed_loss(contract), contract.promotion.margin
    if since.lower > allowed or (before is not None and since.lower - before.upper > margin):
        return "hurts"
    compared = any(row.period == "before" for row in request.rows)
    small = not compared or (before is not None and since.upper - before.lower <= margin)
    return "does not hurt" if since.upper <= allowed and (small or not request.open_count) else "more labels"


def _needed(since: Interval | None, before: Interval | None, contract: TaskContract) -> int:
    """Labels more until a bound may reach the floor or the tolerated loss, whichever is nearer: widths go with 1 / root of it."""
    if since is None or since.row_count < LEAST_LABELS:
        return LEAST_LABELS - (since.row_count if since else 0)
    rows = since.row_count + (before.row_count if before else 0)
    gaps = [(since.mean - allowed_loss(contract), _half(since))]
    if before is not None:
        gaps.append((since.mean - before.mean - contract.promotion.margin, _half(since) + _half(before)))
    return min(_more(rows, abs(gap), half) for gap, half in gaps)


def _half(found: Interval) -> float:
    return max(found.upper - found.mean, found.mean - found.lower)


def _more(rows: int, gap: float, half: float) -> int:
    if gap * math.sqrt(MOST_NEEDED) <= half:
        return MOST_NEEDED
    return max(1, min(MOST_NEEDED, math.ceil(rows * ((half / gap) ** 2 - 1.0))))


def _words(request: LabelRequest, found: ReviewEvidence, contract: TaskContract) -> str:
    """The evidence in one sentence; of a request without a change there is nothing to compare with but the floor."""
    changed = request.onset_seq > 0
    if found.since is None:
        return f"no row{' since the change' if changed else ''} is answered yet"
    what = "wrong" if contract.metric == "accuracy" else "lost of the mean F1"
    parts = [f"{_share(found.since)} {what}{' since the change' if changed else ''}"]
    if found.before is not None:
        parts.append(f"{_share(found.before)} before it")
    allowed = f"the floor tolerates {allowed_loss(contract):.0%}"
    if changed:
        allowed += f", a change {contract.promotion.margin:.0%} more than before"
    needed = found.labels_needed
    more = f"about {needed:,} labels more may settle it" if needed < MOST_NEEDED else "no number of labels in reach will settle it"
    verdict = {"hurts": "it hurts", "does not hurt": "it does not hurt as far as this can be seen", "more labels": more}[found.outcome]
    return f"{', '.join(parts)}; {allowed}: {verdict}"


def _share(found: Interval) -> str:
    return f"{found.mean:.0%} ({100 * found.lower:.0f} to {100 * found.upper:.0f}%)"
