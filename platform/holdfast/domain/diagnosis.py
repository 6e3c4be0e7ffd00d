"""Diagnosis: the named cause of an alert and the action that fits it.

The monitors have established, at a stated error rate, that something changed. Diagnosis compares the captures since the
change with the reference and names the likeliest cause; it is evidence for a decision that the gate still has to approve.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.answers import kind_of, labels_in, spans_in
from holdfast.domain.captures import Capture, LabelledCapture
from holdfast.domain.scorers import Scorers
from holdfast.domain.statistics.confidence import two_shares
from holdfast.domain.statistics.scores import distances, halved
from holdfast.domain.symptoms import Lexicon, breaks, lexicon_of, over_represented, unseen_share
from holdfast.domain.windows import ReferenceWindow

Cause = Literal["input drift", "new class", "concept change", "upstream break", "serving regression", "undetermined"]
Action = Literal["retrain", "ask for labels", "roll back", "wait"]

BREAK_MARGIN = 0.10
"""By how much, at least and surely, the share of broken texts must exceed the reference's."""
NOVELTY_MARGIN = 0.05
"""The same for the share of inputs unlike the training data."""
FAMILIAR = 0.9
"""Quantile of the calibration rows' novelty below which an input counts as familiar."""
MIN_LABELLED = 10
"""Fewer labelled captures say nothing about errors."""
NEW_CLASS_ROWS = 5
NEW_CLASS_SHARE = 0.25
"""Share of the errors that must carry a label the adapter does not know, for that to be the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """A cause, the action that fits it, and the evidence both rest on."""

    cause: Cause
    action: Action
    sentence: str
    """One sentence in words, with the top contributors."""
    evidence: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """What a diagnosis is made from."""

    reference: ReferenceWindow
    scorers: Scorers
    recent: Sequence[Capture]
    """Captures since the change."""
    labelled: Sequence[LabelledCapture]
    """Those of them that have a label."""
    known_labels: frozenset[str]
    """Labels of the adapter that answers."""
    alarmed: frozenset[str]
    """Monitors in alarm."""
    input_alarm_acts: bool = False
    serving_suspect: bool = False
    """The replicas answer with something else than what was judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errors:
    """Errors now and in the reference, among familiar and among novel inputs: (wrong, rows)."""

    now: tuple[int, int]
    familiar: tuple[int, int]
    novel: tuple[int, int]
    before: tuple[int, int]
    familiar_before: tuple[int, int]
    novel_before: tuple[int, int]

    def excess(self, part: Literal["familiar", "novel"]) -> float:
        """Errors above what the reference's rate gives, in rows."""
        wrong, rows = self.familiar if part == "familiar" else self.novel
        base_wrong, base_rows = self.familiar_before if part == "familiar" else self.novel_before
        usual = _rate((base_wrong, base_rows)) if base_rows >= MIN_LABELLED else _rate(self.before)
        return wrong - usual * rows


def diagnose(case: Case) -> Diagnosis:
    """The likeliest cause. With too little to go by it is `undetermined`, and the action is to ask for labels."""
    if case.serving_suspect:
        sentence = "the replicas answer with something else than the version that was judged"
        return Diagnosis(cause="serving regression", action="roll back", sentence=sentence)
    if not case.recent:
        return Diagnosis(cause="undetermined", action="ask for labels", sentence="no capture since the change can be looked at yet")
    lexicon = lexicon_of(case.reference.fitted.texts)
    broken = _upstream(case, lexicon)
    return broken if broken is not None else _traffic(case, lexicon)


def family_of(cause: Cause) -> str:
    """The family of a cause; alerts of one family, version and task are one alert."""
    return {"upstream break": "upstream", "serving regression": "serving"}.get(cause, "traffic")


def _upstream(case: Case, lexicon: Lexicon) -> Diagnosis | None:
    texts = [c.text for c in case.recent]
    known = case.reference.calibration.texts or case.reference.fitted.texts
    now, before = breaks(texts, lexicon), breaks(known, lexicon)
    surely = {s: two_shares(now[s], len(texts), before[s], len(known)) for s in now}
    worst = max(surely, key=lambda s: surely[s][1])
    if surely[worst][1] <= BREAK_MARGIN:
        return None
    sentence = (
        f"{now[worst] / len(texts):.0%} of recent inputs are {worst}, against {before[worst] / len(known):.0%} before; "
        "whatever sends them is likelier broken than the world changed, and training on them would not help"
    )
    evidence = {f"share {sign}": now[sign] / len(texts) for sign in now if now[sign]}
    return Diagnosis(cause="upstream break", action="wait", sentence=sentence, evidence=evidence)


def _traffic(case: Case, lexicon: Lexicon) -> Diagnosis:
    novel_now, novel_before = _novelty(case, lexicon)
    errors = _errors(case, novel_now, novel_before)
    cause = _cause(case, errors, novel_now, novel_before)
    harmed = "quality" in case.alarmed or case.input_alarm_acts
    action: Action = "retrain" if harmed and cause != "undetermined" else "ask for labels"
    evidence = {"recent_count": float(len(case.recent)), "labelled_count": float(len(case.labelled)), "share_novel": _mean(novel_now)}
    if case.labelled:
        evidence |= {"error_rate_before": _rate(errors.before), "error_rate_now": _rate(errors.now)}
    sentence = _sentence(case, cause, errors, novel_now, over_represented([c.text for c in case.recent], lexicon))
    return Diagnosis(cause=cause, action=action, sentence=sentence, evidence=evidence)


def _cause(case: Case, errors: _Errors, novel_now: NDArray[np.bool_], novel_before: NDArray[np.bool_]) -> Cause:
    wrong, rows = errors.now
    fresh = sum(bool(_unknown(case, row)) for row in case.labelled)
    if fresh >= NEW_CLASS_ROWS and fresh >= NEW_CLASS_SHARE * wrong:
        return "new class"
    risen = "quality" in case.alarmed or two_shares(wrong, rows, *errors.before)[1] > 0
    if risen and rows >= MIN_LABELLED:
        return "concept change" if errors.excess("familiar") >= errors.excess("novel") else "input drift"
    more_novel = two_shares(int(novel_now.sum()), len(novel_now), int(novel_before.sum()), len(novel_before))[1]
    if more_novel > NOVELTY_MARGIN or case.alarmed - {"quality"}:
        return "input drift"
    return "undetermined"


def _novelty(case: Case, lexicon: Lexicon) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each recent capture, and each calibration row, is unlike the training data in meaning or in words."""
    rows = case.reference.calibration
    width = rows.embeddings.shape[1] if rows.embeddings.ndim == 2 else 0
    recent = np.stack([c.embedding if c.embedding.shape == (width,) else np.full(width, np.nan) for c in case.recent])
    far_before, far_now = _distance(case.scorers, rows.embeddings), _distance(case.scorers, recent)
    odd_before = np.array([unseen_share(text, lexicon) for text in rows.texts])
    odd_now = np.array([unseen_share(c.text, lexicon) for c in case.recent])
    before = np.maximum(_place(far_before, far_before), _place(odd_before, odd_before))
    now = np.maximum(_place(far_now, far_before), _place(odd_now, odd_before))
    limit = np.quantile(before, FAMILIAR) if len(before) else 1.0
    return now > limit, before > limit


def _distance(scorers: Scorers, embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    """Distance [n] to what was known; a row that is not finite is as far as can be."""
    stored = halved(embeddings)
    if scorers.embedding is None or stored.ndim != 2:
        return np.zeros(len(stored))
    good = np.asarray(np.isfinite(stored).all(axis=1))
    return np.where(good, distances(scorers.embedding, np.where(good[:, None], stored, 0.0)), np.inf)


def _place(values: NDArray[np.float64], among: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share [n] of ``among`` that lies strictly below each value; so 1 only above everything."""
    return np.searchsorted(np.sort(among), values, side="left") / max(1, len(among))


def _errors(case: Case, novel_now: NDArray[np.bool_], novel_before: NDArray[np.bool_]) -> _Errors:
    novel = dict(zip((c.capture_id for c in case.recent), novel_now.tolist(), strict=True))
    now = [(row.wrong, novel[row.capture.capture_id]) for row in case.labelled if row.capture.capture_id in novel]
    rows = case.reference.calibration
    marked = zip(rows.predictions, rows.labels, novel_before.tolist(), strict=True)
    before = [(said != label, odd) for said, label, odd in marked if label is not None]
    return _Errors(
        now=_count(now), familiar=_count([e for e in now if not e[1]]), novel=_count([e for e in now if e[1]]),
        before=_count(before), familiar_before=_count([e for e in before if not e[1]]), novel_before=_count([e for e in before if e[1]]),
    )  # fmt: skip


def _count(rows: Sequence[tuple[bool, bool]]) -> tuple[int, int]:
    return sum(wrong for wrong, _ in rows), len(rows)


def _rate(part: tuple[int, int]) -> float:
    return part[0] / part[1] if part[1] else 0.0


def _mean(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else 0.0


def _sentence(case: Case, cause: Cause, errors: _Errors, novel_now: NDArray[np.bool_], words: Sequence[str]) -> str:
    parts = [f"{_mean(novel_now):.0%} of {len(case.recent)} recent inputs are unlike the training data (10% were)"]
    if words:
        parts.append(f"words most over-represented: {', '.join(words)}")
    if errors.now[1] >= MIN_LABELLED:
        parts.append(f"errors went from {_rate(errors.before):.0%} to {_rate(errors.now):.0%} ({errors.now[1]} labelled)")
        parts += _where_wrong(case, cause, errors)
    else:
        parts.append(f"only {errors.now[1]} of them have a label, so lost quality is not shown")
    return "; ".join(parts)


def _where_wrong(case: Case, cause: Cause, errors: _Errors) -> list[str]:
    """The labels and the kind of input that the errors fall on."""
    if cause == "new class":
        fresh = Counter(label for row in case.labelled for label in _unknown(case, row))
        return [f"labels the version does not know: {', '.join(f'{name} ({n})' for name, n in _top(fresh))}"]
    wrong = Counter(words for row in case.labelled if row.wrong for words in _mistakes(row))
    part = "familiar" if cause == "concept change" else "new"
    rate = _rate(errors.familiar if part == "familiar" else errors.novel)
    found = [f"{rate:.0%} of the {part} inputs are answered wrong"] if cause in ("concept change", "input drift") else []
    return found + ([f"most often {', '.join(f'{name} ({n})' for name, n in _top(wrong))}"] if wrong else [])


def _unknown(case: Case, row: LabelledCapture) -> list[str]:
    return [label for label in labels_in(row.label.value) if label not in case.known_labels]


def _mistakes(row: LabelledCapture) -> list[str]:
    """What was wrong, in words that can be counted: of sets and spans each label by itself."""
    said, right = row.capture.prediction.label, row.label.value
    if kind_of(right) == "classification":
        return [f"{right} answered as {said}"]
    ours, true = set(labels_in(said)), set(labels_in(right))
    found = [f"{label} missed" for label in sorted(true - ours)] + [f"{label} said without reason" for label in sorted(ours - true)]
    return found or [f"{label} cut out wrongly" for label in _cut_wrongly(said, right)]


def _cut_wrongly(said: str, right: str) -> list[str]:
    return sorted({span.field for span in set(spans_in(said)) ^ set(spans_in(right))})


def _top(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
