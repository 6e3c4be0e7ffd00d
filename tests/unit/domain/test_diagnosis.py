"""Diagnosis: the cause that was planted is the cause that is named, and the action fits it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from holdfast.domain import scorers
from holdfast.domain.captures import LabelledCapture
from holdfast.domain.diagnosis import Case, Diagnosis, diagnose, family_of
from holdfast.domain.symptoms import lexicon_of, over_represented, unseen_share
from holdfast.testing.builders import LABELS, a_reference_window
from holdfast.testing.streams import a_stream

REFERENCE = a_reference_window(row_count=400)
FITTED = scorers.fit(REFERENCE)
QUALITY = frozenset({"quality"})
INPUTS = frozenset({"embedding"})


def _diagnose(rows: Sequence[LabelledCapture], alarmed: frozenset[str], *, labelled: bool = True, **fields: Any) -> Diagnosis:
    case = Case(
        reference=REFERENCE, scorers=FITTED, recent=[row.capture for row in rows], labelled=rows if labelled else [],
        known_labels=frozenset(LABELS), alarmed=alarmed, **fields,
    )  # fmt: skip
    return diagnose(case)


def _texts(change: Callable[[str, int], str], count: int = 100) -> list[LabelledCapture]:
    rows = a_stream(count, 11)
    return [replace(row, capture=replace(row.capture, text=change(row.capture.text, n))) for n, row in enumerate(rows)]


BREAKS = {
    "empty": lambda text, n: "" if n % 3 == 0 else text,
    "far shorter than before": lambda text, n: "q",
    "made of signs, not letters": lambda text, n: "0x3f 99 ## 12;;34 {} 0x77 -- 88",
    "in broken encoding": lambda text, n: f"{text} fÃ¼r mich",
    "in another script": lambda text, n: "где мой заказ номер семь",
    "in another language": lambda text, n: "wann kommt meine bestellung endlich bei mir an",
    "cut at one length": lambda text, n: f"{text[:18]} {n:03d} {text}"[:22],
}


@pytest.mark.parametrize("sign", BREAKS)
def test_broken_texts_are_an_upstream_break_and_wait(sign: str) -> None:
    found = _diagnose(_texts(BREAKS[sign]), QUALITY | INPUTS)
    assert (found.cause, found.action) == ("upstream break", "wait")
    assert sign in found.sentence


def test_a_few_broken_texts_are_not_the_cause() -> None:
    found = _diagnose(_texts(lambda text, n: "" if n % 25 == 0 else text), QUALITY)
    assert found.cause != "upstream break"


def test_errors_on_familiar_inputs_are_a_concept_change_and_retrain() -> None:
    found = _diagnose(a_stream(200, 12, share_right=0.5), QUALITY)
    assert (found.cause, found.action) == ("concept change", "retrain")
    assert "errors went from" in found.sentence
    assert " answered as " in found.sentence


def test_errors_on_novel_inputs_are_input_drift_and_retrain() -> None:
    rows = [*a_stream(100, 13, share_right=0.92), *a_stream(100, 14, first_seq=101, shift=6.0, share_right=0.3)]
    found = _diagnose(rows, QUALITY | INPUTS)
    assert (found.cause, found.action) == ("input drift", "retrain")
    assert found.evidence["share_novel"] > 0.4


def test_novel_inputs_without_labels_ask_for_labels() -> None:
    found = _diagnose(a_stream(200, 14, shift=6.0), INPUTS, labelled=False)
    assert (found.cause, found.action) == ("input drift", "ask for labels")
    assert "lost quality is not shown" in found.sentence


def test_novel_inputs_retrain_where_the_policy_lets_an_input_alarm_act() -> None:
    assert _diagnose(a_stream(200, 14, shift=6.0), INPUTS, labelled=False, input_alarm_acts=True).action == "retrain"


def test_labels_the_version_does_not_know_are_a_new_class() -> None:
    rows = a_stream(200, 15, share_right=0.9)
    changed = [replace(row, label=replace(row.label, value="crypto")) if n % 4 == 0 else row for n, row in enumerate(rows)]
    found = _diagnose(changed, QUALITY)
    assert (found.cause, found.action) == ("new class", "retrain")
    assert "crypto (50)" in found.sentence


def test_a_serving_regression_rolls_back_before_anything_else_is_asked() -> None:
    found = _diagnose(_texts(BREAKS["empty"]), QUALITY, serving_suspect=True)
    assert (found.cause, found.action) == ("serving regression", "roll back")


def test_nothing_to_look_at_is_undetermined_and_asks_for_labels() -> None:
    found = _diagnose([], QUALITY)
    assert (found.cause, found.action) == ("undetermined", "ask for labels")


def test_a_quality_alarm_with_hardly_a_label_is_undetermined() -> None:
    rows = a_stream(40, 16)
    case = Case(
        reference=REFERENCE, scorers=FITTED, recent=[row.capture for row in rows], labelled=rows[:5],
        known_labels=frozenset(LABELS), alarmed=QUALITY,
    )  # fmt: skip
    assert diagnose(case).cause == "undetermined"


def test_embeddings_that_are_not_finite_count_as_novel_and_break_nothing() -> None:
    rows = a_stream(50, 17)
    lost = np.full(8, np.nan, dtype=np.float16)
    found = _diagnose([replace(row, capture=replace(row.capture, embedding=lost)) for row in rows], INPUTS, labelled=False)
    assert found.evidence["share_novel"] == 1.0


def test_the_same_case_gets_the_same_sentence() -> None:
    rows = a_stream(200, 12, share_right=0.5)
    assert _diagnose(rows, QUALITY) == _diagnose(rows, QUALITY)


def test_new_words_are_named_and_common_ones_are_not() -> None:
    lexicon = lexicon_of(["where is my order", "my order is late", "where is my parcel"] * 30)
    words = over_represented(["where is my hydrofoil", "the hydrofoil is late"] * 10, lexicon)
    assert words[0] == "hydrofoil"
    assert "is" not in words
    assert unseen_share("hydrofoil order", lexicon) == 0.5
    assert over_represented([], lexicon) == ()


def test_causes_of_one_family_are_one_alert() -> None:
    assert family_of("concept change") == family_of("input drift") == family_of("new class") == family_of("undetermined")
    assert len({family_of("upstream break"), family_of("serving regression"), family_of("concept change")}) == 3


def test_one_text_sent_again_and_again_is_not_cut() -> None:
    again = a_stream(1, 11)[0].capture.text
    found = _diagnose(_texts(lambda text, n: again), INPUTS)
    assert found.cause != "upstream break"
