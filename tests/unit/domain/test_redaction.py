"""What a contract calls sensitive is masked, at the same length, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.domain.answers import Span, spans_in, spans_value
from holdfast.domain.captures import Prediction
from holdfast.domain.redaction import FINDERS, as_kept, redacted, redacted_label
from holdfast.domain.tasks import CapturePolicy, Sensitive
from holdfast.testing.record_builders import a_capture

EVERY = tuple(FINDERS)


@pytest.mark.parametrize(
    ("kind", "text", "masked"),
    [
        ("email", "to a.b+c@mail.example.org, now", "to x.x+x@xxxx.xxxxxxx.xxx, now"),
        ("email", "ü@exämple.de", "x@xxxxxxx.xx"),
        ("phone", "call +44 20 7946 0958 now", "call +00 00 0000 0000 now"),
        ("phone", "call (415) 555-2671.", "call (000) 000-0000."),
        ("phone", "030 901820 oder 0049.30.901820", "000 000000 oder 0000.00.000000"),
        ("credit_card", "4111 1111 1111 1111 and 378282246310005", "0000 0000 0000 0000 and 000000000000000"),
        ("credit_card", "pin 4821 card 5500-0055-5555-5559 code 123", "pin 4821 card 0000-0000-0000-0000 code 123"),
        ("iban", "to DE89 3704 0044 0532 0130 00 ok", "to xx00 0000 0000 0000 0000 00 ok"),
        ("iban", "gb82west12345698765432", "xx00xxxx00000000000000"),
        ("ip", "from 10.0.0.254:80", "from 00.0.0.000:80"),
        ("ip", "2001:db8::ff00:42:8329 or ::1", "0000:xx0::xx00:00:0000 or ::0"),
    ],
)
def test_each_kind_is_masked_by_marks_of_its_shape(kind: Sensitive, text: str, masked: str) -> None:
    assert redacted(text, (kind,)) == masked
    assert len(masked) == len(text)
    assert redacted(text, ()) == text


@pytest.mark.parametrize(
    "text",
    [
        "order 12345678 of 2026-11-25 10:30:55, by 25.11.2026 12:30",
        "£1,234,567.89 for version 1.2.3.4.5 at 300.1.1.1",
        "the code is 4111 1111",
        "mail me @home, a@b, DE89 is a road, at 12:30:45",
    ],
)
def test_what_only_looks_alike_stays(text: str) -> None:
    assert redacted(text, EVERY) == text


def test_a_number_whose_check_digit_is_wrong_is_no_card_and_no_iban() -> None:
    for text in ("4111 1111 1111 1112", "DE89 3704 0044 0532 0130 01", "ZZ89370400440532013000"):
        assert redacted(text, ("credit_card", "iban")) == text


def test_stretches_that_overlap_are_masked_once() -> None:
    assert redacted("x 0041111111111 1111@example.org y", EVERY) == "x 0000000000000 0000@xxxxxxx.xxx y"


def test_a_capture_keeps_offsets_and_embedding_and_its_spans_say_what_its_text_says() -> None:
    text = "write to a@b.org in Oslo"
    spans = (Span(field="to", start=9, end=16, text="a@b.org"), Span(field="city", start=20, end=24, text="Oslo"))
    capture = a_capture(1, text=text, prediction=Prediction(label=spans_value(spans), confidence=0.9), slices={"who": "me@b.org"})
    kept = as_kept(capture, CapturePolicy(redact=("email",)))
    assert (kept.text, kept.slices) == ("write to x@x.xxx in Oslo", {"who": "xx@x.xxx"})
    assert [kept.text[s.start : s.end] for s in spans_in(kept.prediction.label)] == ["x@x.xxx", "Oslo"]
    assert [s.text for s in spans_in(kept.prediction.label)] == ["x@x.xxx", "Oslo"]
    assert np.array_equal(kept.embedding, capture.embedding)
    assert as_kept(capture, CapturePolicy()) is capture


def test_a_label_loses_what_is_masked_and_keeps_its_names_and_places() -> None:
    assert redacted_label('{"spans":[{"field":"to","start":9,"end":16,"text":"a@b.org"}]}', ("email",)) == (
        '{"spans": [{"field": "to", "start": 9, "end": 16}]}'
    )
    assert redacted_label('{"to": "a@b.org", "city": ["Oslo"]}', ("email",)) == '{"to": "x@x.xxx", "city": ["Oslo"]}'
    assert redacted_label("team@b.org", ("email",), ("team@b.org",)) == "team@b.org"
    assert redacted_label("a@b.org", ("email",)) == "x@x.xxx"
    assert redacted_label('["a@b.org"]', (), ()) == '["a@b.org"]'
