"""How an answer looks over HTTP: each kind in the form its caller works with, made from the one canonical text."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.domain.answers import Span, kind_of, labels_in, spans_in


def answer_fields(value: str, confidence: float, parts: Sequence[float]) -> dict[str, object]:
    """`label`, or `labels` in order of name, or `spans` (offsets in characters) with `fields`; and the confidence of the whole answer.

    ``parts``: confidence of each label or span, in their order; shown as `confidences` by label, and in each span.

    >>> answer_fields("refund", 0.5, ())
    {'label': 'refund', 'confidence': 0.5}
    >>> answer_fields('["auth","net"]', 0.5, (0.9, 0.6))
    {'labels': ['auth', 'net'], 'confidences': {'auth': 0.9, 'net': 0.6}, 'confidence': 0.5}
    >>> answer_fields('{"spans":[{"field":"city","start":3,"end":7,"text":"Oslo"}]}', 0.5, (0.8,))["spans"]
    [{'field': 'city', 'start': 3, 'end': 7, 'text': 'Oslo', 'confidence': 0.8}]
    """
    whole = {"confidence": round(confidence, 6)}
    kind = kind_of(value)
    if kind == "classification":
        return {"label": value, **whole}
    if kind == "multi-label":
        labels = list(labels_in(value))
        return {"labels": labels, "confidences": {label: round(part, 6) for label, part in zip(labels, parts, strict=True)}, **whole}
    spans = spans_in(value)
    fields: dict[str, list[str]] = {}
    for span in spans:
        fields.setdefault(span.field, []).append(span.text)
    shown = [_shown(span, part) for span, part in zip(spans, parts, strict=True)]
    return {"spans": shown, "fields": fields, **whole}


def _shown(span: Span, part: float) -> dict[str, object]:
    return {"field": span.field, "start": span.start, "end": span.end, "text": span.text, "confidence": round(part, 6)}
