"""Planted changes: seeded, pure, in the share that was asked for, and nothing where none was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain import drill
from holdfast.domain.captures import Capture, LabelledCapture
from holdfast.domain.drill import CHANGES, OF_TEXTS, Change, DrillPlan, Sighting, capture_of, changed_text, planted, stream, summed_up
from holdfast.errors import RequestInvalid
from holdfast.testing.streams import a_stream

PLAN = DrillPlan(events=60, quiet_events=40, replicates=3)
POOL: list[LabelledCapture | Capture] = list(a_stream(150, 1))


def changed_pool(change: Change) -> dict[int, LabelledCapture | Capture]:
    captures = [capture_of(row) for row in POOL]
    answered = {n: replace(c, text=changed_text(c.text, change, seed=0, index=n)) for n, c in enumerate(captures)}
    return planted(POOL, change, answered if change in OF_TEXTS else {})


def told(rows: list[LabelledCapture | Capture]) -> list[tuple[str, str]]:
    return [(capture_of(row).text, row.label.value if isinstance(row, LabelledCapture) else "") for row in rows]


@pytest.mark.parametrize("change", CHANGES)
def test_share_nothing_changes_nothing(change: Change) -> None:
    changed, unchanged = changed_pool(change), dict(enumerate(POOL))
    assert told(stream(POOL, changed, PLAN, share=0.0, replicate=1)) == told(stream(POOL, unchanged, PLAN, share=1.0, replicate=1))


@pytest.mark.parametrize("change", CHANGES)
def test_the_quiet_part_is_never_touched_and_a_larger_share_changes_what_a_smaller_one_did(change: Change) -> None:
    changed = changed_pool(change)
    none, some, most = (told(stream(POOL, changed, PLAN, share=share, replicate=0)) for share in (0.0, 0.3, 0.8))
    hit = [{n for n, (before, after) in enumerate(zip(none, rows, strict=True)) if before != after} for rows in (some, most)]
    assert hit[0] <= hit[1]
    assert hit[1]
    assert min(hit[1]) >= PLAN.quiet_events


def test_a_stream_holds_each_capture_once_and_every_event_has_an_id_of_its_own() -> None:
    rows = stream(POOL, {}, PLAN, share=0.0, replicate=2)
    assert len({capture_of(row).text for row in rows}) == len({capture_of(row).capture_id for row in rows}) == PLAN.captures_needed
    assert [capture_of(row).seq for row in rows] == list(range(1, PLAN.captures_needed + 1))


@given(text=st.text(max_size=80), seed=st.integers(0, 9), change=st.sampled_from(CHANGES))
def test_a_text_is_changed_the_same_way_every_time(text: str, seed: int, change: Change) -> None:
    assert changed_text(text, change, seed=seed, index=3) == changed_text(text, change, seed=seed, index=3)


@pytest.mark.parametrize("change", OF_TEXTS)
def test_each_change_of_texts_changes_an_ordinary_text(change: Change) -> None:
    text = "where is the parcel that I ordered last week"
    assert changed_text(text, change, seed=0, index=0) != text


@given(text=st.text(max_size=80))
def test_truncation_never_lengthens_and_noise_keeps_the_words_count(text: str) -> None:
    cut = changed_text(text, "truncation", seed=0, index=0)
    assert text.startswith(cut)
    assert len(changed_text(text, "noise", seed=0, index=0).split()) == len(text.split())


def test_labels_change_places_and_texts_stay() -> None:
    changed = changed_pool("label-swap")
    rows = [(row, changed[n]) for n, row in enumerate(POOL)]
    assert all(capture_of(before) is capture_of(after) for before, after in rows)
    values = [(a.label.value, b.label.value) for a, b in rows if isinstance(a, LabelledCapture) and isinstance(b, LabelledCapture)]
    assert any(a != b for a, b in values)
    assert len({a for a, _ in values}) == len(set(values))  # one place for each label


def test_texts_of_a_file_are_the_new_class() -> None:
    assert changed_text("anything", "new-class", seed=0, index=4, strangers=["one", "two", "three"]) == "two"


def test_a_row_counts_what_was_seen_and_leaves_false_alarms_out_of_the_delays() -> None:
    seen = [Sighting(delay=d, monitor="embedding", cause="input drift") for d in (10, 20, 90)]
    row = summed_up("typos", 0.5, [*seen, Sighting(delay=None), Sighting(delay=None, false_alarm=True)])
    assert (row.seen, row.replicates, row.false_alarms, row.delay_median, row.named_rightly) == (3, 5, 1, 20.0, 3)


def test_the_smallest_share_is_one_that_nine_streams_in_ten_saw() -> None:
    def row(share: float, seen: int) -> drill.DrillRow:
        sightings = [Sighting(delay=5 if n < seen else None) for n in range(10)]
        return summed_up("noise", share, sightings)

    assert drill.smallest_seen([row(0.1, 8), row(0.25, 9), row(0.5, 10)]) == {"noise": 0.25}
    assert drill.smallest_seen([row(0.1, 8)]) == {"noise": None}


@pytest.mark.parametrize("fields", [{"events": 1}, {"quiet_events": 0}, {"replicates": 0}, {"shares": ()}, {"shares": (0.1, 1.2)}])
def test_a_plan_out_of_range_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(RequestInvalid):
        drill.check_plan(replace(PLAN, **fields))  # type: ignore[arg-type]
