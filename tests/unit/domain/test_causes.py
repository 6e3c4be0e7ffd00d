"""Causes beside the old ones: serving, label sources, mix, new words and topics, several at once; and the rows they exclude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from holdfast.domain import scorers
from holdfast.domain.captures import LabelledCapture
from holdfast.domain.diagnosis import Case, Diagnosis, Exclusion, diagnose
from holdfast.domain.exclusions import admitted
from holdfast.domain.records import from_plain, to_plain
from holdfast.domain.retraining import Go, Hold, decide_by_hand
from holdfast.testing.builders import LABELS, a_reference_window, an_alert
from holdfast.testing.streams import a_stream

REFERENCE = a_reference_window(row_count=400)
FITTED = scorers.fit(REFERENCE)
QUALITY = frozenset({"quality"})


def _diagnose(rows: Sequence[LabelledCapture], alarmed: frozenset[str] = QUALITY, **fields: Any) -> Diagnosis:
    case = Case(
        reference=REFERENCE, scorers=FITTED, recent=[row.capture for row in rows], labelled=rows, known_labels=frozenset(LABELS),
        alarmed=alarmed, **fields,
    )  # fmt: skip
    return diagnose(case)


def _from(rows: Sequence[LabelledCapture], source: str, value: str | None = None) -> list[LabelledCapture]:
    return [replace(row, label=replace(row.label, source=source, value=value or row.label.value)) for row in rows]


def _poisoned() -> list[LabelledCapture]:
    good, bad = a_stream(100, 12, share_right=0.95), a_stream(60, 13, first_seq=101, share_right=0.1)
    now = bad[0].label.labelled_at
    burst = [replace(row, label=replace(row.label, source="crowd", labelled_at=now + timedelta(seconds=n))) for n, row in enumerate(bad)]
    return [*good, *burst]


def test_a_source_that_disagrees_where_the_others_agree_is_named_and_nothing_is_trained() -> None:
    found = _diagnose(_poisoned(), onset_seq=1)
    assert (found.cause, found.action) == ("label source", "wait")
    assert "'crowd'" in found.sentence and "within one hour" in found.sentence
    assert found.exclusions == (Exclusion(since_seq=1, source="crowd"),)


def test_sources_that_agree_with_one_another_are_no_matter_of_labels() -> None:
    rows = a_stream(200, 12, share_right=0.5)
    assert _diagnose([*_from(rows[::2], "agents"), *_from(rows[1::2], "crowd")]).cause == "concept change"


def test_one_source_alone_cannot_be_doubted() -> None:
    assert _diagnose(_from(a_stream(200, 12, share_right=0.5), "agents")).cause == "concept change"


def test_the_same_text_answered_otherwise_by_the_same_version_rolls_back() -> None:
    known = REFERENCE.calibration
    rows = [
        replace(row, capture=replace(row.capture, text=known.texts[n], prediction=replace(row.capture.prediction, label=f"not {n}")))
        for n, row in enumerate(a_stream(60, 14))
    ]
    found = _diagnose(rows)
    assert (found.cause, found.action) == ("serving regression", "roll back")
    assert "answered otherwise" in found.sentence


def test_one_replica_that_errs_where_the_others_do_not_is_a_serving_regression() -> None:
    good, bad = a_stream(100, 12, share_right=0.95), a_stream(100, 13, first_seq=101, share_right=0.3)
    placed = [replace(r, capture=replace(r.capture, slices={"replica": name})) for rows, name in ((good, "a"), (bad, "b")) for r in rows]
    found = _diagnose(placed)
    assert found.cause == "serving regression" and "replica b" in found.sentence


def test_slow_answers_are_a_serving_regression_only_beside_the_time_before() -> None:
    calm = [row.capture for row in a_stream(100, 12)]
    late = [replace(r, capture=replace(r.capture, latency_ms=40 * r.capture.latency_ms + 40)) for r in a_stream(100, 13, first_seq=101)]
    assert _diagnose(late, frozenset(), before=calm).cause == "serving regression"
    assert _diagnose(late, frozenset()).cause != "serving regression"


def test_more_of_one_label_answered_as_well_as_before_is_a_mix_shift_and_waits() -> None:
    more = [row for row in a_stream(400, 12, share_right=1.0) if row.capture.prediction.label == "billing"]
    texts = REFERENCE.fitted.texts
    rows = [replace(row, capture=replace(row.capture, text=texts[n])) for n, row in enumerate(more)]
    found = _diagnose(rows, frozenset({"label_mix"}))
    assert (found.cause, found.action) == ("mix shift", "wait")
    first = found.changes[0]
    assert first.name == "label billing" and first.before < first.now and first.lower > 0.05


def test_a_case_of_which_no_cause_is_clear_says_what_is_over_represented() -> None:
    found = _diagnose(a_stream(200, 15), frozenset())
    assert found.cause == "undetermined"
    assert "the cause is unknown; most over-represented: " in found.sentence


def test_novel_inputs_come_in_groups_with_bounded_examples() -> None:
    texts = [f"{text} hydrofoil \u200e {(text + ' ') * (n % 8)}" for n, text in enumerate(REFERENCE.fitted.texts)]
    rows = [replace(r, capture=replace(r.capture, text=texts[n])) for n, r in enumerate(a_stream(120, 14, shift=6.0))]
    found = _diagnose(rows, frozenset({"embedding"}))
    examples = [text for group in found.groups for text in group.examples]
    assert examples and all(len(text) <= 120 and text.isprintable() for text in examples)
    assert "hydrofoil" in found.groups[0].terms


@pytest.mark.parametrize("text", ['{"body": "where is my order"}', "<p>where is my order</p>"])
def test_markup_where_prose_was_is_an_upstream_break(text: str) -> None:
    rows = [replace(r, capture=replace(r.capture, text=text.replace("order", f"order {n}"))) for n, r in enumerate(a_stream(60, 14))]
    assert "markup or JSON" in _diagnose(rows).sentence


def test_broken_rows_and_rows_of_a_bad_source_are_excluded_from_the_onset_on() -> None:
    rows = a_stream(20, 14)
    rows[5] = replace(rows[5], capture=replace(rows[5].capture, text=""))
    rows[15] = replace(rows[15], capture=replace(rows[15].capture, text=" "))
    rows[16] = replace(rows[16], label=replace(rows[16].label, source="crowd"))
    exclusions = (Exclusion(since_seq=10, sign="empty"), Exclusion(since_seq=10, source="crowd"))
    found = Diagnosis(cause="upstream break", action="wait", sentence="broken", exclusions=exclusions)
    kept = admitted(rows, [an_alert(diagnosis=found, state="resolved")], REFERENCE.fitted.texts)
    assert kept == [row for n, row in enumerate(rows) if n not in (15, 16)]
    assert admitted(rows, [an_alert(diagnosis=found, state="false alarm")], REFERENCE.fitted.texts) == rows


def test_a_retraining_by_hand_is_held_while_labels_are_in_doubt() -> None:
    doubt = an_alert(diagnosis=Diagnosis(cause="label source", action="wait", sentence="labels of 'crowd' disagree"), state="open")
    assert isinstance(decide_by_hand([doubt]), Hold)
    assert decide_by_hand([doubt], anyway=True) == Go(over=doubt.alert_id)


def test_a_diagnosis_stored_before_there_were_groups_still_loads() -> None:
    old = {"cause": "input drift", "action": "retrain", "sentence": "moved", "evidence": {"share_novel": 0.5}}
    assert from_plain(Diagnosis, old) == Diagnosis(cause="input drift", action="retrain", sentence="moved", evidence={"share_novel": 0.5})
    found = _diagnose(_poisoned(), onset_seq=1)
    assert from_plain(Diagnosis, to_plain(found)) == found


def test_lost_embeddings_and_lost_latencies_break_nothing() -> None:
    lost = np.full(8, np.nan, dtype=np.float16)
    rows = [replace(r, capture=replace(r.capture, embedding=lost, latency_ms=0.0)) for r in a_stream(60, 17)]
    assert _diagnose(rows, frozenset(), before=[r.capture for r in rows]).groups == ()
