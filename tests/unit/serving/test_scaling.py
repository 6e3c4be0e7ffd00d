"""How many replicas the busyness that replicas tell asks for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from holdfast.serving.scaling import BUSY, by_busyness


@pytest.mark.parametrize(
    ("told", "replicas", "wanted"),
    [
        ({"a": 1.0}, 1, 1.25),
        ({"a": 0.4}, 1, 0.5),
        ({"a": 0.8, "b": 0.8}, 2, 2.0),
        ({"a": 2.0, "b": 0.0}, 2, 2.5),
        ({"a": 1.0}, 2, 2.5),
    ],
)
def test_replicas_are_wanted_so_that_each_is_busy_four_fifths_of_its_passes(told: dict[str, float], replicas: int, wanted: float) -> None:
    """One that has not told anything yet counts like the others."""
    context = SimpleNamespace(aggregated_metrics={BUSY: told}, current_num_replicas=replicas, target_num_replicas=replicas)
    assert by_busyness(context)[0] == pytest.approx(wanted)


@pytest.mark.parametrize("metrics", [None, {}, {"other": {"a": 9.0}}, {BUSY: {}}])
def test_while_nothing_is_told_the_number_stays(metrics: dict[str, dict[str, float]] | None) -> None:
    context = SimpleNamespace(aggregated_metrics=metrics, current_num_replicas=3, target_num_replicas=2)
    assert by_busyness(context) == (2, {})
