"""How an answer looks over HTTP: each kind in the form its caller works with, made from the one canonical text."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.domain.answers import Span, kind_of, labels_in, spans_in


def answer_fields(value: str, confidence: float, parts: Sequence[float] = ()) -> dict[str, object]:
    """`label`, or `labels` in order of name, or `spans` (offsets in characters) with `fields`; and the confidence of the whole answer.

    ``parts``: confidence of each label or span, in their order; shown as `confidences` by label, and in each span. Where they are
    not known (a replica of an older release answered), they are not shown.

    >>> answer_fields("refund", 0.5)
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
        by_label = {"confidences": dict(zip(labels, parts, strict=True))} if len(parts) == len(labels) else {}
        return {"labels": labels, **by_label, **whole}
    spans = spans_in(value)
    fields: dict[str, list[str]] = {}
    for span in spans:
        fields.setdefault(span.field, []).append(span.text)
    return {"spans": _shown(spans, parts), "fields": fields, **whole}


def _shown(spans: Sequence[Span], parts: Sequence[float]) -> list[dict[str, object]]:
    shown: list[dict[str, object]] = [{"field": s.field, "start": s.start, "end": s.end, "text": s.text} for s in spans]
    if len(parts) == len(shown):
        shown = [one | {"confidence": part} for one, part in zip(shown, parts, strict=True)]
    return shown
