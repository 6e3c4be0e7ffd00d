"""Serving: answers that changed with a generation or a replica, that differ for the same text, or that became slow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from holdfast.domain.captures import Capture, LabelledCapture
from holdfast.domain.diagnosis.case import MIN_LABELLED, Case, Finding
from holdfast.domain.diagnosis.shares import share_change
from holdfast.domain.statistics.confidence import two_shares
from holdfast.domain.symptoms import lexicon_of, unseen_share

OTHERWISE_MARGIN = 0.05
"""Share of the repeated texts that one version must surely answer otherwise than before."""
SAME = 10_000
"""Repeats of calm traffic that stand for none being answered otherwise: a version has one answer to a text."""
PLACE_MARGIN = 0.05
"""By how much, at least and surely, one replica must be wrong more often than the others."""
SLOW_MARGIN = 0.20
"""By how much, at least and surely, the share of answers slower than nineteen in twenty before must exceed a twentieth."""
SLOW_FACTOR = 1.5
"""And the median must have grown by this factor: a tail alone is a busy machine."""
LEAST_BEFORE = 50
NEAR_ONSET = 0.1
"""The generation must begin within so much of the captures since the onset."""


def regression(case: Case) -> Finding | None:
    """The surest sign that the same version is served otherwise; None while there is none."""
    if case.serving_suspect:
        return Finding(cause="serving regression", sentence="the replicas answer with something else than the version that was judged")
    return _answers_otherwise(case) or _one_replica(case) or _since_generation(case) or _slow(case)


def _answers_otherwise(case: Case) -> Finding | None:
    """One version gives one text one answer, so another answer to a text that was asked before is not the world's doing."""
    rows = case.reference.calibration
    said = dict(zip(rows.texts, rows.predictions, strict=True))
    said |= {c.text: c.prediction.label for c in case.before if c.adapter_digest == case.reference.adapter_digest}
    repeated = [c for c in case.recent if c.text.strip() and c.text in said]
    other = sum(c.prediction.label != said[c.text] for c in repeated)
    if len(repeated) < MIN_LABELLED or two_shares(other, len(repeated), 0, SAME)[1] <= OTHERWISE_MARGIN:
        return None
    moment = _generations(case)
    sentence = f"{other} of {len(repeated)} texts that were asked before are answered otherwise by the same version{moment}"
    change = share_change("same text, other answer", (other, len(repeated)), (0, SAME))
    return Finding(cause="serving regression", sentence=sentence, changes=(change,), evidence={"repeated_count": float(len(repeated))})


def _generations(case: Case) -> str:
    old = {c.generation for c in case.before}
    new = sorted({c.generation for c in case.recent} - old)
    return f", since generation {new[0]} of the routing table" if old and new else ""


def _one_replica(case: Case) -> Finding | None:
    """One replica is wrong where the others are not."""
    places = sorted({row.capture.slices["replica"] for row in case.labelled if "replica" in row.capture.slices})
    for place in places if len(places) > 1 else []:
        own = [row for row in case.labelled if row.capture.slices.get("replica") == place]
        others = [row for row in case.labelled if row.capture.slices.get("replica") != place]
        now, rest = _wrong(own), _wrong(others)
        if min(len(own), len(others)) >= MIN_LABELLED and two_shares(*now, *rest)[1] > PLACE_MARGIN:
            sentence = f"replica {place} answers {now[0] / now[1]:.0%} wrong ({now[1]} labelled), the others {rest[0] / rest[1]:.0%}"
            return Finding(cause="serving regression", sentence=sentence, changes=(share_change(f"errors of replica {place}", now, rest),))
    return None


def _since_generation(case: Case) -> Finding | None:
    """Errors that began with a generation, in answers that look otherwise to inputs made of the same words."""
    old = {c.generation for c in case.before}
    first = next((i for i, c in enumerate(case.recent) if c.generation not in old), None)
    if not old or first is None or first > NEAR_ONSET * len(case.recent) or not case.alarmed - {"quality"}:
        return None
    new = case.recent[first].generation
    if any(c.generation in old for c in case.recent[first:]) or _words_changed(case):
        return None
    now, usual = _wrong(case.labelled), _wrong(case.labelled_before)
    if min(now[1], usual[1]) < MIN_LABELLED or two_shares(*now, *usual)[1] <= PLACE_MARGIN:
        return None
    rates = f"{usual[0] / usual[1]:.0%} to {now[0] / now[1]:.0%}"
    sentence = f"errors went from {rates} with generation {new} of the routing table, on inputs of the same words"
    return Finding(cause="serving regression", sentence=sentence, changes=(share_change("errors since the generation", now, usual),))


def _words_changed(case: Case) -> bool:
    """Whether the inputs hold surely more unseen words than before: then the world may have changed with the generation."""
    lexicon = lexicon_of(case.reference.fitted.texts)
    now = sum(unseen_share(c.text, lexicon) > 0 for c in case.recent)
    base = sum(unseen_share(text, lexicon) > 0 for text in case.reference.calibration.texts)
    return two_shares(now, len(case.recent), base, len(case.reference.calibration))[1] > 0.0


def _slow(case: Case) -> Finding | None:
    before, now = _latencies(case.before), _latencies(case.recent)
    if min(len(before), len(now)) < LEAST_BEFORE:
        return None
    limit = float(np.quantile(before, 0.95))
    slow, usual = (int((now > limit).sum()), len(now)), (int((before > limit).sum()), len(before))
    medians = float(np.median(before)), float(np.median(now))
    if two_shares(*slow, *usual)[1] <= SLOW_MARGIN or medians[1] < SLOW_FACTOR * medians[0]:
        return None
    sentence = f"answers take {medians[1]:.0f} ms in the middle, against {medians[0]:.0f} ms before{_generations(case)}"
    evidence = {"latency_ms_before": medians[0], "latency_ms_now": medians[1]}
    change = share_change(f"answers slower than {limit:.0f} ms", slow, usual)
    return Finding(cause="serving regression", sentence=sentence, changes=(change,), evidence=evidence)


def _latencies(captures: Sequence[Capture]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    found = np.array([c.latency_ms for c in captures], dtype=np.float64)
    return found[np.isfinite(found) & (found > 0)]


def _wrong(rows: Sequence[LabelledCapture]) -> tuple[int, int]:
    return sum(row.wrong for row in rows), len(rows)
