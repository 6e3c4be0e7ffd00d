"""What goes into a snapshot."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.captures import Capture, Label, LabelledCapture, Prediction
from holdfast.domain.curation import alike_to_sealed
from holdfast.domain.datasets import Example, SnapshotRow
from holdfast.domain.ids import AdapterDigest, CaptureId, TaskName
from holdfast.domain.near_duplicates import SIMILARITY, similarity
from holdfast.domain.splits import contradicted_texts, first_snapshot, next_snapshot, normalised
from holdfast.domain.tasks import RetrainingPolicy
from holdfast.domain.windows import ReferenceWindow, WindowRows
from holdfast.testing.builders import a_snapshot_row

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def labelled(seq: int, text: str, label: str, vector: tuple[float, float] = (1.0, 0.0)) -> LabelledCapture:
    capture = Capture(
        capture_id=CaptureId(f"c{seq}"),
        task=TaskName("t"),
        text=text,
        prediction=Prediction(label="a", confidence=0.9),
        adapter_digest=AdapterDigest("sha256:0"),
        generation=1,
        route="champion",
        captured_at=NOW,
        latency_ms=1.0,
        embedding=np.asarray(vector, dtype=np.float16),
        seq=seq,
    )
    return LabelledCapture(
        capture=capture, label=Label(capture_id=CaptureId(f"c{seq}"), task=TaskName("t"), value=label, source="desk", labelled_at=NOW)
    )


def window(texts: list[str], vectors: list[tuple[float, float]]) -> WindowRows:
    n = len(texts)
    return WindowRows(
        texts=tuple(texts),
        predictions=("a",) * n,
        confidences=np.full(n, 0.9, dtype=np.float32),
        embeddings=np.asarray(vectors, dtype=np.float32).reshape(n, 2),
        labels=("a",) * n,
    )


def past_rows(count: int) -> tuple[SnapshotRow, ...]:
    return first_snapshot([Example(text=f"old {i}", label="ab"[i % 2]) for i in range(count)], seed=1).rows


def test_a_text_that_differs_only_in_case_and_blanks_is_one_row() -> None:
    rows = first_snapshot([Example(text="Hi  there", label="a"), Example(text="hi there ", label="a")], seed=1).rows
    assert [row.text for row in rows] == ["Hi  there"]


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=60), st.integers(0, 5))
def test_no_text_is_in_two_splits_and_row_ids_count_up(texts: list[str], seed: int) -> None:
    rows = first_snapshot([Example(text=t, label="ab"[i % 2]) for i, t in enumerate(texts)], seed=seed).rows
    assert len({normalised(row.text) for row in rows}) == len(rows)
    assert [row.row_id for row in rows] == list(range(len(rows)))


def test_shares_of_a_first_snapshot_are_near_what_is_promised() -> None:
    counts = Counter(row.split for row in past_rows(4000))
    assert abs(counts["holdout"] / 4000 - 0.2) < 0.03
    assert abs(counts["validation"] / 4000 - 0.1) < 0.03


def test_a_label_with_few_rows_is_all_kept_for_training() -> None:
    rows = first_snapshot([Example(text=f"x{i}", label="a") for i in range(50)] + [Example(text="r", label="rare")], seed=1).rows
    assert [row.split for row in rows if row.label == "rare"] == ["train"]


def test_a_text_the_parent_was_trained_on_is_never_held_out_for_the_child() -> None:
    past = past_rows(200)
    again = [labelled(100 + i, row.text, row.label) for i, row in enumerate(past)]
    frozen = next_snapshot(past, again, since_seq=100, reference=None, policy=RetrainingPolicy(), seed=99)
    before = {row.text: row.split for row in past}
    assert all(row.split == before[row.text] for row in frozen.rows)
    assert all(row.period == "recent" for row in frozen.rows)


def test_captures_before_the_onset_count_as_past() -> None:
    items = [labelled(i, f"new {i}", "ab"[i % 2]) for i in range(40)]
    frozen = next_snapshot(past_rows(20), items, since_seq=30, reference=None, policy=RetrainingPolicy(), seed=1)
    periods = {row.text: row.period for row in frozen.rows}
    assert (periods["new 29"], periods["new 30"]) == ("past", "recent")


def test_past_rows_that_recent_labels_contradict_are_left_out() -> None:
    reference = ReferenceWindow(
        adapter_digest=AdapterDigest("sha256:0"),
        fitted=window(["moved", "kept"], [(1.0, 0.0), (0.0, 1.0)]),
        calibration=window([], []),
    )
    recent = [labelled(i, f"n{i}", "b", (1.0, 0.1)) for i in range(6)]
    assert contradicted_texts(["moved", "kept"], ["a", "a"], recent, reference) == {"moved"}


def test_recent_rows_that_disagree_among_themselves_contradict_nothing() -> None:
    reference = ReferenceWindow(
        adapter_digest=AdapterDigest("sha256:0"), fitted=window(["moved"], [(1.0, 0.0)]), calibration=window([], [])
    )
    recent = [labelled(i, f"n{i}", "bc"[i % 2], (1.0, 0.1)) for i in range(6)]
    assert contradicted_texts(["moved"], ["a"], recent, reference) == frozenset()


def test_more_rows_than_the_limit_keep_the_newest_and_the_replay_share() -> None:
    items = [labelled(i, f"new {i}", "ab"[i % 2]) for i in range(300)]
    policy = RetrainingPolicy(max_rows=200, replay_share=0.25)
    frozen = next_snapshot(past_rows(300), items, since_seq=0, reference=None, policy=policy, seed=1)
    counts = Counter(row.period for row in frozen.rows)
    assert (counts["past"], counts["recent"]) == (50, 150)
    assert "new 299" in {row.text for row in frozen.rows}


TEXTS = st.lists(
    st.lists(st.sampled_from(["where", "is", "my", "new", "card", "please"]), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=40
)


@given(TEXTS, TEXTS, TEXTS)
def test_near_duplicates_are_in_one_split_in_every_later_snapshot_and_nothing_alike_to_a_sealed_row_trains(
    first: list[str], later: list[str], sealed: list[str]
) -> None:
    past = first_snapshot([Example(text=text, label="ab"[n % 2]) for n, text in enumerate(first)], seed=1).rows
    items = [labelled(n, text, "ab"[n % 2]) for n, text in enumerate(later)]
    frozen = next_snapshot(past, items, since_seq=5, reference=None, policy=RetrainingPolicy(), seed=1, sealed=sealed)
    assert alike_to_sealed(past, ()) == frozenset()
    assert alike_to_sealed(frozen.rows, sealed) == frozenset()
    before = {normalised(row.text): row.split for row in past}
    assert all(row.split == before.get(normalised(row.text), row.split) for row in frozen.rows)


def long_text(number: int, word: str = "today") -> str:
    return f"dear team about order {number} please tell me now when my parcel {number} with the books will come to my house {word}"


def test_a_new_text_nearly_the_same_as_one_that_is_held_out_is_held_out_too() -> None:
    past = (
        a_snapshot_row(0, text=long_text(1), label="a", split="holdout"),
        a_snapshot_row(1, text=long_text(2), label="a", split="train"),
    )
    items = [labelled(n, long_text(1 + n % 2, f"day{n}"), "a") for n in range(6)]
    frozen = next_snapshot(past, items, since_seq=0, reference=None, policy=RetrainingPolicy(), seed=1)
    assert {row.split for row in frozen.rows} == {"holdout", "train"}
    assert all((row.split == "holdout") == ("parcel 1 " in row.text) for row in frozen.rows)


def test_a_new_text_between_one_held_out_and_one_that_taught_neither_teaches_nor_judges() -> None:
    words = [f"word{n}" for n in range(30)]
    held, between = " ".join(words), " ".join([*words[:-2], "new", "end"])
    taught = " ".join(["begin", "so", *words[2:-2], "new", "end"])
    assert min(similarity(held, between), similarity(between, taught)) >= SIMILARITY > similarity(held, taught)
    past = (a_snapshot_row(0, text=held, label="a", split="holdout"), a_snapshot_row(1, text=taught, label="a", split="train"))
    frozen = next_snapshot(past, [labelled(1, between, "a")], since_seq=0, reference=None, policy=RetrainingPolicy(), seed=1)
    assert [row.text for row in frozen.rows] == [held, taught]
    assert frozen.left_out.sealed_alike_count == 1


def test_rows_of_an_older_snapshot_that_are_nearly_a_held_out_row_stop_teaching_and_are_counted() -> None:
    past = tuple(a_snapshot_row(n, text=long_text(7, f"day{n}"), split="holdout" if n == 0 else "train") for n in range(4))
    frozen = next_snapshot(past, [], since_seq=0, reference=None, policy=RetrainingPolicy(), seed=1)
    assert [row.split for row in frozen.rows] == ["holdout"]
    assert frozen.left_out.sealed_alike_count == 3


def test_near_duplicates_beyond_the_contracts_number_do_not_train_and_the_newest_stay() -> None:
    examples = [Example(text=long_text(9, f"day{n}"), label="ab"[n % 2]) for n in range(20)]
    frozen = first_snapshot(examples, seed=3, policy=RetrainingPolicy(max_near_duplicates=2))
    assert [row.text for row in frozen.rows] == [long_text(9, f"day{n}") for n in (16, 17, 18, 19)]
    assert frozen.left_out.near_duplicate_count == 16


def test_texts_with_two_labels_are_counted_by_the_source_of_the_older_and_a_recent_label_overrules_a_past_one() -> None:
    past = (a_snapshot_row(0, text="exact", label="a", split="train"), a_snapshot_row(1, text=long_text(1), label="a", split="train"))
    items = [labelled(1, "exact", "b"), labelled(2, long_text(1, "tomorrow"), "b")]
    frozen = next_snapshot(past, items, since_seq=0, reference=None, policy=RetrainingPolicy(), seed=1)
    assert {row.text: row.label for row in frozen.rows} == {"exact": "b", long_text(1, "tomorrow"): "b"}
    assert frozen.left_out.conflicts_by_source == {"file": 2}


def test_two_labels_of_one_period_for_nearly_the_same_text_are_counted_and_both_teach() -> None:
    examples = [Example(text=long_text(1, word), label=label) for word, label in (("today", "a"), ("tomorrow", "b"))]
    frozen = first_snapshot(examples, seed=1)
    assert len(frozen.rows) == 2
    assert frozen.left_out.conflict_count == 1


def from_source(items: list[LabelledCapture], source: str) -> list[LabelledCapture]:
    return [replace(item, label=replace(item.label, source=source)) for item in items]


def test_a_burst_of_one_source_is_capped_and_the_others_labels_all_count() -> None:
    desk = [labelled(n, f"desk {n}", "a") for n in range(100)]
    burst = from_source([labelled(1_000 + n, f"robot {n}", "b") for n in range(5_000)], "robot")
    frozen = next_snapshot(past_rows(50), [*desk, *burst], since_seq=0, reference=None, policy=RetrainingPolicy(), seed=1)
    counts = Counter(row.source for row in frozen.rows)
    assert (counts["desk"], counts["robot"]) == (100, 400), "four fifths of the recent rows at most"
    assert frozen.left_out.capped_by_source == {"robot": 4_600}


@pytest.mark.parametrize("source", ["console:ann", "review", "review:2"])
def test_labels_of_a_person_who_looked_at_the_text_are_never_capped(source: str) -> None:
    seen = from_source([labelled(n, f"seen {n}", "a") for n in range(900)], source)
    items = [*seen, *(labelled(1_000 + n, f"desk {n}", "a") for n in range(10))]
    frozen = next_snapshot(past_rows(50), items, since_seq=0, reference=None, policy=RetrainingPolicy(), seed=1)
    assert frozen.left_out.capped_by_source == {}


def test_a_source_that_is_the_only_one_is_not_capped() -> None:
    items = [labelled(n, f"desk {n}", "a") for n in range(900)]
    frozen = next_snapshot(past_rows(50), items, since_seq=0, reference=None, policy=RetrainingPolicy(), seed=1)
    assert len([row for row in frozen.rows if row.source == "desk"]) == 900
