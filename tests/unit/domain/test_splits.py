"""What goes into a snapshot."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.captures import Capture, Label, LabelledCapture, Prediction
from holdfast.domain.datasets import Example, SnapshotRow
from holdfast.domain.ids import AdapterDigest, CaptureId, TaskName
from holdfast.domain.splits import contradicted_texts, first_snapshot, next_snapshot, normalised
from holdfast.domain.tasks import RetrainingPolicy
from holdfast.domain.windows import ReferenceWindow, WindowRows

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
