"""Traffic: what changed in the inputs themselves, their mix, or what is right for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from holdfast.domain.diagnosis.case import MIN_LABELLED, Case, Cause, Finding
from holdfast.domain.diagnosis.mistakes import Errors, confusions, errors_of, rate, top, unknown_labels
from holdfast.domain.diagnosis.shares import moved, share_change, sureness
from holdfast.domain.diagnosis.topics import embeddings_of, far, groups_of, novelty
from holdfast.domain.statistics.confidence import two_shares
from holdfast.domain.symptoms import Lexicon, new_words, over_represented, unseen_share

NOVELTY_MARGIN = 0.05
"""By how much, at least and surely, the share of inputs unlike the training data must exceed the reference's."""
WORDS_MARGIN = 0.03
"""The same for the share of inputs with words that no known text holds."""
MIX_MARGIN = 0.05
"""By how much the share of a label or slice must surely have moved for the mix to be the cause."""
NEW_CLASS_ROWS = 5
NEW_CLASS_SHARE = 0.25
"""Share of the errors that must carry a label the adapter does not know, for that to be the cause."""
FAR_SHARE = 0.4
"""Share of the inputs new in words that must also be far in meaning for them to be a topic and not new words for the old ones."""
FAR = 0.95
"""Quantile of the calibration rows' distance above which an input is far."""
KNOWN_SHARE = 0.8
"""Share of the labelled novel inputs whose label must be known for a vocabulary to have shifted."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """The measurements that the causes of this family share."""

    case: Case
    lexicon: Lexicon
    novel: NDArray[np.bool_]
    """[recent]."""
    novel_before: NDArray[np.bool_]
    errors: Errors


def view_of(case: Case, lexicon: Lexicon) -> View:
    """The case, measured once."""
    now, before = novelty(case, lexicon)
    return View(case=case, lexicon=lexicon, novel=now, novel_before=before, errors=errors_of(case, now, before))


def causes_of(view: View) -> list[Finding]:
    """Every cause of this family that holds, the one to act on first. Empty where none is clear."""
    found = _new_class(view) or _novel_inputs(view)
    rest = [_concept(view, found), _mix(view, found)]
    findings = [f for f in (found, *rest) if f is not None]
    return findings or [f for f in (_drift(view),) if f is not None]


def told(view: View) -> list[str]:
    """What is told of every case: novelty, words, errors."""
    rows, errors = view.case.recent, view.errors
    words = over_represented([c.text for c in rows], view.lexicon)
    parts = [f"{_mean(view.novel):.0%} of {len(rows)} recent inputs are unlike the training data ({_mean(view.novel_before):.0%} were)"]
    parts += [f"words most over-represented: {', '.join(words)}"] if words else []
    if errors.now[1] < MIN_LABELLED:
        return [*parts, f"only {errors.now[1]} of them have a label, so lost quality is not shown"]
    return [*parts, f"errors went from {rate(errors.before):.0%} to {rate(errors.now):.0%} ({errors.now[1]} labelled)"]


def _new_class(view: View) -> Finding | None:
    case = view.case
    fresh = [label for row in case.labelled for label in unknown_labels(case, row)]
    rows = sum(bool(unknown_labels(case, row)) for row in case.labelled)
    if rows < NEW_CLASS_ROWS or rows < NEW_CLASS_SHARE * view.errors.now[0]:
        return None
    names = ", ".join(f"{name} ({n})" for name, n in top(Counter(fresh)))
    own = {row.capture.capture_id for row in case.labelled if unknown_labels(case, row)}
    groups = groups_of([c for c, odd in zip(case.recent, view.novel, strict=True) if odd or c.capture_id in own], view.lexicon)
    return Finding(cause="new class", sentence=f"labels the version does not know: {names}", groups=groups)


def _novel_inputs(view: View) -> Finding | None:
    """A topic that the version was not taught, or new words for what it knows; None while inputs are not surely more novel."""
    case, known = view.case, view.case.reference.calibration
    odd, odd_before = new_words([c.text for c in case.recent], view.lexicon), new_words(known.texts, view.lexicon)
    novel_risen = _risen(view.novel, view.novel_before)
    words_risen = _risen(odd, odd_before)
    if max(novel_risen - NOVELTY_MARGIN, words_risen - WORDS_MARGIN) <= 0:
        return None
    if novel_risen <= 0 and any(sureness(change) > MIX_MARGIN for change in moved(case)):
        return None  # more of what was always asked brings more of its rare words
    cause = _kind_of_novelty(view, words_risen > 0)
    groups = groups_of([c for c, new in zip(case.recent, view.novel, strict=True) if new], view.lexicon)
    now, before = (int(odd.sum()), len(odd)), (int(odd_before.sum()), len(odd_before))
    changes = (
        share_change("inputs with new words", now, before),
        share_change("inputs unlike the training data", _hits(view.novel), _hits(view.novel_before)),
    )
    return Finding(cause=cause, sentence=_novel_sentence(cause, groups, view), changes=changes, groups=groups)


def _kind_of_novelty(view: View, words_risen: bool) -> Cause:
    """Labels decide where novel inputs have them as often as all do; else whether they mean something far from all that is known."""
    case = view.case
    odd = np.array([unseen_share(c.text, view.lexicon) > 0 for c in case.recent])
    before, now = far(case.scorers, case.reference.calibration.embeddings), far(case.scorers, embeddings_of(case))
    limit = float(np.quantile(before, FAR)) if len(before) else np.inf
    both = odd & view.novel
    if not both.any() or not (words_risen or _risen(odd, _odd_before(view)) > 0):
        return "input drift"
    new = {c.capture_id for c, flag in zip(case.recent, both, strict=True) if flag}
    labelled = [row for row in case.labelled if row.capture.capture_id in new]
    if len(labelled) >= MIN_LABELLED and len(labelled) * len(case.recent) >= 0.5 * len(case.labelled) * len(new):
        known = sum(not unknown_labels(case, row) for row in labelled)
        return "vocabulary shift" if known >= KNOWN_SHARE * len(labelled) else "new topic"
    return "new topic" if float((now[both] > limit).mean()) >= FAR_SHARE else "vocabulary shift"


def _odd_before(view: View) -> NDArray[np.bool_]:
    return np.array([unseen_share(text, view.lexicon) > 0 for text in view.case.reference.calibration.texts], dtype=bool)


def _novel_sentence(cause: Cause, groups: tuple[object, ...], view: View) -> str:
    if cause == "vocabulary shift":
        return "the words are new, what is meant by them is not"
    if cause == "new topic":
        return f"inputs the version was not taught, in {len(groups)} groups"
    return f"{rate(view.errors.novel):.0%} of the new inputs are answered wrong"


def _concept(view: View, novel: Finding | None) -> Finding | None:
    """Errors surely risen on inputs like those it was taught."""
    errors, case = view.errors, view.case
    risen = "quality" in case.alarmed or errors.surely_risen
    if not risen or errors.now[1] < MIN_LABELLED:
        return None
    surely = two_shares(*errors.familiar, *errors.familiar_before)[1] > 0
    if novel is not None and not surely:
        return None
    if errors.excess("familiar") < errors.excess("novel"):
        return None
    wrong = ", ".join(f"{name} ({n})" for name, n in confusions(case.labelled))
    sentence = f"{rate(errors.familiar):.0%} of the familiar inputs are answered wrong; most often {wrong}"
    change = share_change("errors on familiar inputs", errors.familiar, errors.familiar_before)
    return Finding(cause="concept change", sentence=sentence, changes=(change,))


def _mix(view: View, novel: Finding | None) -> Finding | None:
    """Labels or slices whose share surely moved, where neither novel inputs nor errors explain it."""
    changes = moved(view.case)
    if novel is not None or not changes or sureness(changes[0]) <= MIX_MARGIN:
        return None
    shown = ", ".join(f"{c.name} from {c.before:.0%} to {c.now:.0%}" for c in changes[:3])
    return Finding(cause="mix shift", sentence=f"the mix moved: {shown}", changes=changes)


def _drift(view: View) -> Finding | None:
    case, errors = view.case, view.errors
    if ("quality" in case.alarmed or errors.surely_risen) and errors.now[1] >= MIN_LABELLED:
        wrong = ", ".join(f"{name} ({n})" for name, n in confusions(case.labelled))
        sentence = f"{rate(errors.novel):.0%} of the new inputs are answered wrong; most often {wrong}"
        return Finding(cause="input drift", sentence=sentence)
    if case.alarmed - {"quality"}:
        return Finding(cause="input drift", sentence="the inputs moved as a whole; no group of them stands out")
    return None


def _risen(now: NDArray[np.bool_], before: NDArray[np.bool_]) -> float:
    return two_shares(*_hits(now), *_hits(before))[1]


def _hits(flags: NDArray[np.bool_]) -> tuple[int, int]:
    return int(flags.sum()), len(flags)


def _mean(flags: NDArray[np.bool_]) -> float:
    return float(flags.mean()) if len(flags) else 0.0
