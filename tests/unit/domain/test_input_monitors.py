"""Monitors of a learned direction, of novelty, of texts and of slices: what they find, what they cost, and when they say nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from holdfast.domain import monitors, scorers
from holdfast.domain.captures import Capture, LabelledCapture
from holdfast.domain.monitors import MonitorReading, MonitorState
from holdfast.domain.scorers import Scorers
from holdfast.domain.statistics import e_detector, fourier_witness
from holdfast.domain.tasks import MonitoringPolicy
from holdfast.testing.builders import a_reference_window, a_window
from holdfast.testing.streams import a_stream

POLICY = MonitoringPolicy(run_length_events=10_000)
REFERENCE = a_reference_window(row_count=400)
FITTED = scorers.fit(REFERENCE)
QUIET = a_stream(500, 2)


def _feed(
    rows: Sequence[LabelledCapture], states: Mapping[str, MonitorState] | None = None, fitted: Scorers = FITTED
) -> dict[str, MonitorState]:
    return monitors.observe(states or monitors.start(fitted), fitted, [row.capture for row in rows], POLICY)


def _read(states: Mapping[str, MonitorState], fitted: Scorers = FITTED) -> dict[str, MonitorReading]:
    return {r.monitor: r for r in monitors.readings(states, fitted, POLICY)}


def _changed(rows: Sequence[LabelledCapture], change: Callable[[Capture], Capture]) -> list[LabelledCapture]:
    return [replace(row, capture=change(row.capture)) for row in rows]


def _later(count: int, seed: int, **fields: float) -> list[LabelledCapture]:
    return a_stream(count, seed, first_seq=501, **fields)  # type: ignore[arg-type]


def test_a_small_move_of_all_embeddings_is_found_by_the_learned_direction() -> None:
    read = _read(_feed(_later(700, 3, shift=0.6), _feed(QUIET)))
    assert read["embedding_shift"].status == "alarm"
    assert read["text"].status != "alarm"


def _witness_alarms(shift: float, known: int, rows: int, replicates: int, log_threshold: float) -> int:
    alarms = 0
    for seed in range(replicates):
        random = np.random.default_rng([seed, known])
        witness = fourier_witness.fit(random.standard_normal((200, 6)), random.standard_normal((known, 6)))
        assert witness is not None
        memory = fourier_witness.fresh(witness)
        detector = e_detector.fresh(fourier_witness.COMPONENTS, len(fourier_witness.TILTS))
        seen = fourier_witness.features(witness, random.standard_normal((rows, 6)) + shift)
        events = (seen, random.random((rows, fourier_witness.COMPONENTS)), range(1, rows + 1))
        alarms += fourier_witness.advance(witness, memory, detector, events, log_threshold)[1].alarm_seq > 0
    return alarms


@pytest.mark.parametrize("known", [40, 400])
def test_a_small_reference_costs_the_learned_direction_no_false_alarms(known: int) -> None:
    nominal = 512 / 2_000
    assert _witness_alarms(0.0, known, 512, 150, math.log(2_000)) / 150 <= nominal


def test_a_change_that_was_called_normal_does_not_alarm_the_learned_direction_again() -> None:
    states = _feed(a_stream(700, 4, shift=1.0))
    assert _read(states)["embedding_shift"].status == "alarm"
    anew = monitors.begin_anew(states["embedding_shift"], FITTED, "embedding_shift", alert_id="alr_1", keep_traffic=True)
    bare = monitors.begin_anew(states["embedding_shift"], FITTED, "embedding_shift", alert_id="alr_1", keep_traffic=False)
    later = a_stream(700, 5, first_seq=701, shift=1.0)
    assert _read(_feed(later, {**states, "embedding_shift": anew}))["embedding_shift"].status != "alarm"
    assert _read(_feed(later, {**states, "embedding_shift": bare}))["embedding_shift"].status == "alarm"


def test_rows_like_nothing_known_alarm_novelty() -> None:
    away = np.full(8, -2.0, dtype=np.float16)
    rows = _later(300, 6)
    strange = [*_changed(rows[::4], lambda c: replace(c, embedding=away, prediction=replace(c.prediction, confidence=0.5))), *rows[1::4]]
    read = _read(_feed(sorted(strange, key=lambda row: row.capture.seq), _feed(QUIET)))
    assert read["novelty"].status == "alarm"


@pytest.mark.parametrize(
    "broken",
    [
        lambda text: text[:9],
        lambda text: text.replace("question", "qeustion"),
        lambda text: text + "?!?!?!?!?!",
        lambda text: "",
    ],
    ids=["truncated", "misspelt", "more marks", "empty"],
)
def test_texts_that_are_written_otherwise_alarm_the_text_monitor_alone(broken: Callable[[str], str]) -> None:
    read = _read(_feed(_changed(_later(300, 7), lambda c: replace(c, text=broken(c.text))), _feed(QUIET)))
    assert [name for name, reading in read.items() if reading.status == "alarm"] == ["text"]


def test_a_slice_that_takes_over_alarms_the_slice_mix() -> None:
    read = _read(_feed(_changed(_later(300, 8), lambda c: replace(c, slices={"channel": "chat"})), _feed(QUIET)))
    assert [name for name, reading in read.items() if reading.status == "alarm"] == ["slice_mix"]


@pytest.mark.parametrize(
    ("slices", "why"), [({}, "500 events could not be read: they have no slices"), ({"a": "b"}, "all events have the same slices")]
)
def test_traffic_without_a_mix_of_slices_is_not_enough_data_and_says_why(slices: dict[str, str], why: str) -> None:
    read = _read(_feed(_changed(QUIET, lambda c: replace(c, slices=slices))))["slice_mix"]
    assert (read.status, read.note) == ("not enough data", why)


def test_slices_that_a_client_makes_up_cost_no_more_memory() -> None:
    few = _feed(QUIET)["slice_mix"]
    many = _feed(_changed(QUIET, lambda c: replace(c, slices={"user": f"{c.capture_id}"})))["slice_mix"]
    assert many.counts.shape == few.counts.shape == (1, 32)
    assert _read({**_feed(QUIET), "slice_mix": many})["slice_mix"].status != "alarm"


def test_all_monitors_of_a_task_are_remembered_in_few_bytes() -> None:
    states = _feed([*a_stream(1_000, 9), *a_stream(300, 4, first_seq=1_001, shift=2.0)])
    assert sum(len(monitors.dump(state)) for state in states.values()) < 32_000


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_skipped_and_never_an_alarm(bad: float) -> None:
    lost = np.full(8, bad, dtype=np.float16)
    read = _read(_feed(_changed(QUIET, lambda c: replace(c, embedding=lost))))
    for name in ("embedding_shift", "novelty"):
        assert (read[name].status, read[name].note) == ("not enough data", "500 events could not be read")


@pytest.mark.parametrize("rows", [0, 1])
def test_a_reference_of_no_rows_or_one_is_not_enough_data(rows: int) -> None:
    fitted = scorers.fit(replace(REFERENCE, fitted=a_window(rows)))
    read = _read(_feed(_later(300, 4, shift=3.0), fitted=fitted), fitted)
    assert {read[name].status for name in ("embedding_shift", "novelty", "text")} == {"not enough data"}


def test_a_constant_reference_is_not_enough_data() -> None:
    rows = REFERENCE.fitted
    flat = replace(rows, embeddings=np.ones_like(rows.embeddings), texts=("same",) * len(rows))
    fitted = scorers.fit(replace(REFERENCE, fitted=flat))
    read = _read(_feed(_later(300, 4, shift=3.0), fitted=fitted), fitted)
    assert {read[name].status for name in ("embedding_shift", "novelty", "text")} == {"not enough data"}
    assert read["text"].note == "the reference's training rows are all alike"


def test_calibration_rows_of_another_width_are_not_enough_data() -> None:
    fitted = scorers.fit(replace(REFERENCE, calibration=a_window(400, seed=1, hidden=5)))
    read = _read(_feed(QUIET, fitted=fitted), fitted)
    assert {read[name].status for name in ("embedding", "embedding_shift", "novelty")} == {"not enough data"}


def test_monitors_that_a_home_saved_before_there_were_more_go_on_and_the_others_begin() -> None:
    states = _feed(QUIET)
    saved = {name: monitors.dump(states[name]) for name in ("embedding", "label_mix", "confidence", "quality")}
    old = {name: json.dumps({key: value for key, value in json.loads(text).items() if key != "bins"}) for name, text in saved.items()}
    resumed = monitors.resume(old, FITTED)
    events = {name: state.detector.event_count for name, state in resumed.items()}
    assert events == dict.fromkeys(scorers.NAMES, 0) | {"label_mix": 500}
    assert monitors.dump(resumed["label_mix"]) == saved["label_mix"]
    assert {name: monitors.dump(state) for name, state in monitors.resume(saved, FITTED).items()}["confidence"] == saved["confidence"]
