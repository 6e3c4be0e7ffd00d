"""How an answer looks over HTTP: each kind in the form its caller works with, made from the one canonical text."""

from __future__ import annotations

from holdfast.domain.answers import kind_of, labels_in, spans_in


def answer_fields(value: str, confidence: float) -> dict[str, object]:
    """`label`, or `labels` in order of name, or `spans` (offsets in characters) with `fields`; and the confidence of the whole answer.

    >>> answer_fields("refund", 0.5)
    {'label': 'refund', 'confidence': 0.5}
    >>> answer_fields('["auth","net"]', 0.5)["labels"]
    ['auth', 'net']
    >>> answer_fields('{"spans":[{"field":"city","start":3,"end":7,"text":"Oslo"}]}', 0.5)["fields"]
    {'city': ['Oslo']}
    """
    shown = {"confidence": round(confidence, 6)}
    kind = kind_of(value)
    if kind == "classification":
        return {"label": value, **shown}
    if kind == "multi-label":
        return {"labels": list(labels_in(value)), **shown}
    spans = spans_in(value)
    fields: dict[str, list[str]] = {}
    for span in spans:
        fields.setdefault(span.field, []).append(span.text)
    return {"spans": [{"field": s.field, "start": s.start, "end": s.end, "text": s.text} for s in spans], "fields": fields, **shown}
