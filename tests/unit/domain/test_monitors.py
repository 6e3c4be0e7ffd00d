"""Monitors: quiet without change, alarmed soon after one, bit-exact over restarts, and silent when they cannot know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from holdfast.domain import monitors, scorers
from holdfast.domain.captures import LabelledCapture
from holdfast.domain.monitors import MonitorReading, MonitorState
from holdfast.domain.scorers import Scorers
from holdfast.domain.tasks import MonitoringPolicy
from holdfast.testing.builders import a_reference_window, a_window
from holdfast.testing.streams import a_stream

POLICY = MonitoringPolicy(run_length_events=10_000)
REFERENCE = a_reference_window(row_count=400)
FITTED = scorers.fit(REFERENCE)


def _feed(
    rows: Sequence[LabelledCapture], states: Mapping[str, MonitorState] | None = None, fitted: Scorers = FITTED
) -> dict[str, MonitorState]:
    states = states or monitors.start(fitted)
    states = monitors.observe(states, fitted, [row.capture for row in rows], POLICY)
    return monitors.observe_labels(states, fitted, rows, POLICY)


def _read(states: Mapping[str, MonitorState], fitted: Scorers = FITTED) -> dict[str, MonitorReading]:
    return {r.monitor: r for r in monitors.readings(states, fitted, POLICY)}


def _dumped(states: Mapping[str, MonitorState]) -> dict[str, str]:
    return {name: monitors.dump(state) for name, state in states.items()}


def _undecided(read: Mapping[str, MonitorReading]) -> set[str]:
    return {name for name, reading in read.items() if reading.status == "not enough data"}


def test_unchanged_traffic_stays_quiet() -> None:
    read = _read(_feed(a_stream(2_000, 1)))
    assert {r.status for r in read.values()} <= {"quiet", "watching"}
    assert all(r.event_count == 2_000 for r in read.values())


def test_quality_has_half_of_the_budget_and_the_others_share_the_rest() -> None:
    thresholds = {name: np.exp(r.log_threshold) for name, r in _read(monitors.start(FITTED)).items()}
    assert thresholds.pop("quality") == pytest.approx(20_000)
    assert list(thresholds.values()) == pytest.approx([140_000] * 7)
    assert 1 / 20_000 + sum(1 / threshold for threshold in thresholds.values()) == pytest.approx(1 / 10_000)


def test_more_errors_alarm_the_quality_monitor_alone_and_the_onset_is_near() -> None:
    read = _read(_feed(a_stream(400, 3, first_seq=1_001, share_right=0.6), _feed(a_stream(1_000, 2))))
    assert read["quality"].status == "alarm"
    assert abs(read["quality"].onset_seq - 1_001) < 60
    assert read["quality"].detail["alarm_seq"] < 1_200
    assert read["quality"].detail["error_rate_reference"] < 0.2
    assert read["embedding"].status != "alarm"


def test_fewer_errors_alarm_nothing() -> None:
    assert _read(_feed(a_stream(400, 3, first_seq=1_001, share_right=1.0), _feed(a_stream(1_000, 2))))["quality"].status != "alarm"


def test_moved_embeddings_alarm_the_embedding_monitor_within_a_hundred_events() -> None:
    read = _read(_feed(a_stream(300, 4, first_seq=1_001, shift=2.0), _feed(a_stream(1_000, 2))))
    assert read["embedding"].status == "alarm"
    assert read["embedding"].detail["alarm_seq"] < 1_100
    assert read["label_mix"].status != "alarm"


def test_one_label_crowding_out_the_others_alarms_the_label_mix() -> None:
    changed = [
        replace(row, capture=replace(row.capture, prediction=replace(row.capture.prediction, label="delivery")))
        for row in a_stream(300, 5, first_seq=1_001)
    ]
    assert _read(_feed(changed, _feed(a_stream(1_000, 2))))["label_mix"].status == "alarm"


@pytest.mark.parametrize("confidence", [0.5, 0.999])
def test_confidence_that_falls_or_rises_alarms(confidence: float) -> None:
    changed = [
        replace(row, capture=replace(row.capture, prediction=replace(row.capture.prediction, confidence=confidence)))
        for row in a_stream(200, 6, first_seq=1_001)
    ]
    assert _read(_feed(changed, _feed(a_stream(1_000, 2))))["confidence"].status == "alarm"


@pytest.mark.parametrize("cut", [0, 1, 19, 500, 1_005, 1_060, 1_099])
def test_a_restart_at_any_point_gives_the_same_states_bit_for_bit(cut: int) -> None:
    rows = [*a_stream(1_000, 2), *a_stream(100, 4, first_seq=1_001, shift=2.0, share_right=0.5)]
    whole = _dumped(_feed(rows))
    between = {name: monitors.load(text) for name, text in _dumped(_feed(rows[:cut])).items()}
    assert _dumped(_feed(rows[cut:], between)) == whole


def test_one_event_at_a_time_is_the_same_as_all_at_once() -> None:
    rows = a_stream(60, 7)
    states = monitors.start(FITTED)
    for row in rows:
        states = _feed([row], states)
    assert _dumped(states) == _dumped(_feed(rows))


def test_fitting_again_gives_the_same_scorers() -> None:
    again = scorers.fit(a_reference_window(row_count=400))
    rows = a_stream(200, 8)
    assert _dumped(_feed(rows, fitted=again)) == _dumped(_feed(rows))


def test_few_events_are_not_enough_data() -> None:
    assert {r.status for r in _read(_feed(a_stream(19, 1))).values()} == {"not enough data"}
    assert {r.status for r in _read(monitors.start(FITTED)).values()} == {"not enough data"}


def test_a_small_reference_is_not_enough_data_however_many_events_come() -> None:
    fitted = scorers.fit(replace(REFERENCE, calibration=a_window(29, seed=1)))
    read = _read(_feed(a_stream(400, 4, shift=3.0, share_right=0.2), fitted=fitted), fitted)
    assert _undecided(read) == set(read) - {"slice_mix"}
    assert read["text"].note == "the reference has 29 rows it could rank among, 30 are needed"


def test_an_empty_reference_is_not_enough_data() -> None:
    fitted = scorers.fit(replace(REFERENCE, fitted=a_window(0), calibration=a_window(0)))
    read = _read(_feed(a_stream(100, 1), fitted=fitted), fitted)
    assert _undecided(read) == set(read) - {"slice_mix"}


def test_a_reference_without_labels_leaves_only_quality_undecided() -> None:
    bare = replace(REFERENCE.calibration, labels=(None,) * 400)
    fitted = scorers.fit(replace(REFERENCE, calibration=bare))
    read = _read(_feed(a_stream(300, 1), fitted=fitted), fitted)
    assert read["quality"].status == "not enough data"
    assert read["confidence"].status == "quiet"


def test_constant_scores_are_not_enough_data() -> None:
    flat = replace(REFERENCE.fitted, embeddings=np.ones_like(REFERENCE.fitted.embeddings), confidences=np.full(400, 0.5, dtype=np.float32))
    fitted = scorers.fit(replace(REFERENCE, fitted=flat))
    read = _read(_feed(a_stream(300, 4, shift=3.0), fitted=fitted), fitted)
    assert read["embedding"].status == read["confidence"].status == "not enough data"


@pytest.mark.parametrize("bad", [np.nan, np.inf, 7e4])
def test_numbers_that_are_not_finite_are_counted_and_never_an_alarm(bad: float) -> None:
    with np.errstate(over="ignore"):
        lost = np.full(8, bad).astype(np.float16)
    rows = [
        replace(row, capture=replace(row.capture, embedding=lost, prediction=replace(row.capture.prediction, confidence=float("nan"))))
        for row in a_stream(300, 9)
    ]
    read = _read(_feed(rows))
    assert read["embedding"].status == read["confidence"].status == "not enough data"
    assert read["embedding"].detail["skipped"] == 300


def test_an_embedding_of_another_width_is_skipped() -> None:
    rows = [replace(row, capture=replace(row.capture, embedding=np.zeros(3, dtype=np.float16))) for row in a_stream(30, 9)]
    assert _read(_feed(rows))["embedding"].detail["skipped"] == 30


def test_not_finite_reference_rows_are_left_out_of_the_reference() -> None:
    holed = REFERENCE.calibration.embeddings.copy()
    holed[:380] = np.nan
    fitted = scorers.fit(replace(REFERENCE, calibration=replace(REFERENCE.calibration, embeddings=holed)))
    assert _read(_feed(a_stream(300, 1), fitted=fitted), fitted)["embedding"].status == "not enough data"


@pytest.mark.parametrize("keep", [True, False])
def test_a_monitor_begins_anew_only_when_a_person_closed_its_alert(keep: bool) -> None:
    states = _feed(a_stream(300, 4, shift=2.0))
    assert _read(_feed(a_stream(300, 1), states))["embedding"].status == "alarm"
    anew = monitors.begin_anew(states["embedding"], FITTED, "embedding", alert_id="alr_1", keep_traffic=keep)
    assert anew.closed == ("alr_1",)
    read = _read({**states, "embedding": anew})["embedding"]
    assert (read.status, read.event_count) == ("not enough data", 0)
    assert anew.counts.sum() == (700 if keep else 400) * 5


def test_traffic_that_was_called_normal_does_not_alarm_again_at_once() -> None:
    states = _feed(a_stream(2_000, 4, shift=2.0))
    anew = monitors.begin_anew(states["embedding"], FITTED, "embedding", alert_id="alr_1", keep_traffic=True)
    later = _feed(a_stream(150, 5, first_seq=2_001, shift=2.0), {**states, "embedding": anew})
    assert _read(later)["embedding"].status != "alarm"
