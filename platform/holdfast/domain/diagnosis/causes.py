"""Causes in order: what breaks the evidence is looked for first, and what it explains counts for no later cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from holdfast.domain.diagnosis.case import Action, Case, Cause, Diagnosis, Finding
from holdfast.domain.diagnosis.labellers import doubtful_source
from holdfast.domain.diagnosis.mistakes import rate
from holdfast.domain.diagnosis.serving import regression
from holdfast.domain.diagnosis.shares import moved
from holdfast.domain.diagnosis.traffic import View, causes_of, told, view_of
from holdfast.domain.diagnosis.upstream import broken, unbroken
from holdfast.domain.symptoms import Lexicon, lexicon_of, over_represented

NOT_MENDED: Mapping[Cause, str] = {
    "upstream break": "broken inputs are never trained on; mend what sends them",
    "label source": "labels of a doubtful source are never trained on; check the source",
    "serving regression": "the version is served otherwise than it was judged; roll back or mend the replicas",
    "mix shift": "the version still answers as well as it did; training would change nothing",
    "undetermined": "no cause is clear",
}
"""Why no training starts for these causes."""


def diagnose(case: Case) -> Diagnosis:
    """The likeliest cause, and the others that hold. With too little to go by it is `undetermined`, and the action asks for labels."""
    served = regression(case) if case.serving_suspect or case.recent else None
    if served is not None and case.serving_suspect:
        return _said(case, [served], None)
    if not case.recent:
        return Diagnosis(cause="undetermined", action="ask for labels", sentence="no capture since the change can be looked at yet")
    lexicon = lexicon_of(case.reference.fitted.texts)
    upstream, source = broken(case, lexicon), doubtful_source(case)
    first = [f for f in (upstream, served if upstream is None else None, source) if f is not None]
    rest = _without(case, upstream, source, lexicon)
    if first and not rest.recent:
        return _said(case, first, None)
    view = view_of(rest, lexicon)
    # errors of a version that is served otherwise say nothing of the world
    traffic = causes_of(view) if first[:1] == [] or (served is None and _alone(first, view)) else []
    return _said(case, [*first, *traffic], view)


def family_of(cause: Cause) -> str:
    """The family of a cause; alerts of one family, version and task are one alert."""
    return {"upstream break": "upstream", "serving regression": "serving"}.get(cause, "traffic")


def _without(case: Case, upstream: Finding | None, source: Finding | None, lexicon: Lexicon) -> Case:
    """The case without the rows that an upstream break or a doubtful source explains."""
    recent = list(case.recent) if upstream is None else unbroken(list(case.recent), upstream, lexicon)
    kept = {c.capture_id for c in recent}
    doubted = {e.source for e in source.exclusions} if source is not None else set()
    labelled = [r for r in case.labelled if r.label.source not in doubted and (upstream is None or r.capture.capture_id in kept)]
    if upstream is None and source is None:
        return case
    return replace(case, recent=recent, labelled=labelled, alarmed=frozenset())


def _alone(first: Sequence[Finding], view: View) -> bool:
    """Whether enough rows are left to look for another cause."""
    return bool(first) and len(view.case.recent) >= 50


def _said(case: Case, findings: Sequence[Finding], view: View | None) -> Diagnosis:
    cause: Cause = findings[0].cause if findings else "undetermined"
    parts = [f.sentence for f in findings]
    if view is not None and cause not in ("upstream break", "serving regression", "label source"):
        parts = [*told(view), *parts]
    if not findings and view is not None:
        parts.append(_unknown(view))
    evidence: dict[str, float] = {"recent_count": float(len(case.recent)), "labelled_count": float(len(case.labelled))}
    if view is not None:
        evidence |= {"share_novel": float(view.novel.mean()) if len(view.novel) else 0.0}
        evidence |= {"error_rate_before": rate(view.errors.before), "error_rate_now": rate(view.errors.now)} if case.labelled else {}
    for finding in findings:
        evidence |= finding.evidence
    return Diagnosis(
        cause=cause, action=_action(case, cause), sentence="; ".join(parts), evidence=evidence,
        also=tuple(dict.fromkeys(f.cause for f in findings[1:] if f.cause != cause)),
        changes=tuple(c for f in findings for c in f.changes), groups=tuple(g for f in findings for g in f.groups),
        exclusions=tuple(e for f in findings for e in f.exclusions),
    )  # fmt: skip


def _action(case: Case, cause: Cause) -> Action:
    if cause == "serving regression":
        return "roll back"
    if cause in ("upstream break", "label source"):
        return "wait"
    harmed = "quality" in case.alarmed or case.input_alarm_acts
    if cause == "mix shift":
        return "ask for labels" if "quality" in case.alarmed else "wait"
    return "retrain" if harmed and cause != "undetermined" else "ask for labels"


def _unknown(view: View) -> str:
    """No cause is clear: the three most over-represented things."""
    words = over_represented([c.text for c in view.case.recent], view.lexicon, 3)
    things = [f"{c.name} from {c.before:.0%} to {c.now:.0%}" for c in moved(view.case)] + [f"the word {word!r}" for word in words]
    return f"the cause is unknown; most over-represented: {', '.join(things[:3]) or 'nothing'}"
