"""What the loop decides on sets and spans: gate, split, monitors, diagnosis, audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from holdfast.domain import gates, scorers
from holdfast.domain.answers import Span, labels_value, spans_value
from holdfast.domain.audit import inspect_examples
from holdfast.domain.captures import LabelledCapture, Prediction
from holdfast.domain.datasets import Example, SnapshotRow
from holdfast.domain.diagnosis import Case, diagnose
from holdfast.domain.gates import Verdict, pick_rung
from holdfast.domain.ids import SnapshotDigest
from holdfast.domain.quality import quality_of
from holdfast.domain.records import digest_of
from holdfast.domain.retraining import HoldoutScores
from holdfast.domain.splits import first_snapshot
from holdfast.domain.tasks import Kind, Metric, RetrainingPolicy, TaskContract
from holdfast.domain.windows import ReferenceWindow, WindowRows
from holdfast.testing.builders import a_capture, a_contract, a_digest, a_label, a_reference_window, a_snapshot_row
from holdfast.testing.clock import NOON
from holdfast.testing.several import orders, topics

FULL = labels_value(["a", "b", "c"])
ROWS = tuple(a_snapshot_row(n, text=f"text {n}", label=FULL, split="holdout", period="past" if n < 200 else "recent") for n in range(400))


def contract(metric: Metric, floor: float = 0.7) -> TaskContract:
    return replace(a_contract(floor=floor), kind="multi-label", labels=("a", "b", "c"), metric=metric)


def scores(name: str, said: str, rows: tuple[SnapshotRow, ...] = ROWS) -> HoldoutScores:
    count = len(rows)
    return HoldoutScores(
        digest=a_digest(name), row_ids=tuple(r.row_id for r in rows), predictions=(said,) * count, confidences=(0.5,) * count
    )


def judged(metric: Metric, candidate: HoldoutScores, champion: HoldoutScores | None) -> Verdict:
    given = contract(metric)
    return gates.judge(
        given,
        rows=ROWS,
        candidate=candidate,
        champion=champion,
        snapshot_digest=SnapshotDigest("s"),
        policy_digest=digest_of(given),
        now=NOON,
    )


def test_the_gate_judges_a_set_by_the_metric_of_its_contract() -> None:
    nearly = scores("new", labels_value(["a", "b"]))  # F1 0.8 on every row, and right as a whole on none
    worse = scores("old", labels_value(["a"]))  # F1 0.5
    assert judged("f1", nearly, worse).outcome == "pass"
    assert judged("accuracy", nearly, worse).outcome == "fail"
    assert judged("f1", worse, nearly).outcome == "fail"


def test_slices_of_a_set_are_the_rows_that_hold_a_label() -> None:
    verdict = judged("f1", scores("new", FULL), scores("old", labels_value(["a"])))
    assert [(s.name, s.row_count) for s in verdict.slices] == [("a", 400), ("b", 400), ("c", 400)]


def test_the_rung_is_picked_by_the_metric_of_the_contract() -> None:
    head, lora = scores("head", labels_value(["a"])), scores("lora", labels_value(["a", "b"]))
    assert pick_rung(RetrainingPolicy(), head, lora, ROWS, "f1") == "lora"
    assert pick_rung(RetrainingPolicy(), head, lora, ROWS, "accuracy") == "head"


def test_a_row_with_a_rare_label_is_kept_for_training_and_rare_sets_of_frequent_labels_are_not() -> None:
    examples = [Example(text=f"row {n}", label=labels_value(["a", "b"] if n % 2 else ["b", "c"])) for n in range(200)]
    examples.append(Example(text="odd one", label=labels_value(["a", "rare"])))
    examples += [Example(text=f"three {n}", label=labels_value(["a", "b", "c"])) for n in range(3)]
    rows = first_snapshot(examples, seed=3).rows
    assert {row.split for row in rows if "rare" in row.label} == {"train"}
    held = [row for row in first_snapshot(examples * 1, seed=3).rows if row.split == "holdout"]
    assert len(held) > 20


def window(values: list[str], seed: int = 0) -> WindowRows:
    chance = np.random.default_rng(seed)
    count = len(values)
    return WindowRows(
        texts=tuple(f"text {n}" for n in range(count)), predictions=tuple(values), labels=tuple(values),
        confidences=chance.random(count).astype(np.float32), embeddings=chance.normal(size=(count, 4)).astype(np.float32),
    )  # fmt: skip


def test_monitors_rank_sets_by_their_leading_label_and_do_not_drown_in_combinations() -> None:
    values = [e.label for e in orders(1, 120)]
    reference = ReferenceWindow(adapter_digest=a_digest(), fitted=window(values), calibration=window(values, 1))
    fitted = scorers.fit(reference)
    assert set(fitted.label_ranks) <= {"item", "amount", "city"}
    assert fitted.embedding is not None
    assert len(fitted.embedding.centroids) <= 3
    new = spans_value([Span(field="courier", start=0, end=4, text="text")])
    (row,) = scorers.capture_bins(fitted, "label_mix", [a_capture(1, prediction=Prediction(label=new, confidence=0.5))])
    assert row[0] == len(fitted.label_ranks)


def test_a_field_nobody_knew_is_diagnosed_as_new() -> None:
    said, right = spans_value([]), spans_value([Span(field="courier", start=0, end=4, text="text")])
    texts = a_reference_window().fitted.texts  # as they always were, so that nothing but the field is new
    recent = [a_capture(n, text=texts[n], prediction=Prediction(label=said, confidence=0.5)) for n in range(40)]
    labelled = [LabelledCapture(capture=c, label=a_label(n, value=right)) for n, c in enumerate(recent)]
    reference = a_reference_window()
    case = Case(
        reference=reference, scorers=scorers.fit(reference), recent=recent, labelled=labelled, known_labels=frozenset({"city"}),
        alarmed=frozenset({"quality"}),
    )  # fmt: skip
    found = diagnose(case)
    assert (found.cause, found.action) == ("new class", "retrain")
    assert "courier (40)" in found.sentence


def test_quality_by_label_counts_a_row_for_each_label_it_holds() -> None:
    said = Prediction(label=labels_value(["a"]), confidence=0.5)
    rows = [LabelledCapture(capture=a_capture(n, prediction=said), label=a_label(n, value=FULL)) for n in range(3)]
    report = quality_of(rows)
    assert {label: score.row_count for label, score in report.by_label.items()} == {"a": 3, "b": 3, "c": 3}


@pytest.mark.parametrize(("kind", "make"), [("multi-label", topics), ("extraction", orders)])
def test_an_audit_counts_labels_or_fields_and_names_the_row_of_a_mistake(kind: Kind, make: Callable[[int, int], list[Example]]) -> None:
    examples = make(1, 60)
    labels = ("billing", "login", "delivery") if kind == "multi-label" else ("item", "amount", "city")
    given = replace(a_contract(), kind=kind, labels=labels)
    found = inspect_examples(examples, given)
    assert found.error_count == 0
    assert set(found.label_counts) == set(labels)
    unknown = labels_value(["x"]) if kind == "multi-label" else spans_value([Span(field="x", start=0, end=1, text="x")])
    wrong = [*examples, Example(text="x", label=unknown), Example(text="y", label="city")]
    problems = [str(problem) for problem in inspect_examples(wrong, given).errors]
    assert [p.split(":")[0] for p in problems] == ["row 61", "row 62"]
