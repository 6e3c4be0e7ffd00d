"""Every DriftReporter keeps these promises: Evidently's and the twin's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from holdfast.backends.evidently_reports import EvidentlyReporter
from holdfast.domain.windows import WindowRows
from holdfast.ports import DriftReporter
from holdfast.testing.builders import TASK, a_window
from holdfast.testing.clock import NOON
from holdfast.testing.twins import ListReporter


@pytest.fixture(params=["twin", "evidently"])
def reporter(request: pytest.FixtureRequest, tmp_path: Path) -> DriftReporter:
    return ListReporter() if request.param == "twin" else EvidentlyReporter(tmp_path)


def constant(rows: WindowRows) -> WindowRows:
    n = len(rows)
    same = dataclasses.replace(rows, texts=("same",) * n, predictions=("billing",) * n, confidences=np.ones(n, dtype=np.float32))
    return dataclasses.replace(same, embeddings=np.zeros_like(rows.embeddings))


def broken(rows: WindowRows) -> WindowRows:
    n = len(rows)
    blank = dataclasses.replace(rows, texts=("",) * n, labels=(None,) * n, confidences=np.full(n, np.nan, dtype=np.float32))
    return dataclasses.replace(blank, embeddings=np.full_like(rows.embeddings, np.inf))


WINDOWS: dict[str, Callable[[], WindowRows]] = {
    "an ordinary one": lambda: a_window(60, 2),
    "an empty one": lambda: a_window(0, 2),
    "one row": lambda: a_window(1, 2),
    "a constant one": lambda: constant(a_window(60, 2)),
    "nothing finite in it": lambda: broken(a_window(60, 2)),
    "embeddings of another width": lambda: a_window(60, 2, hidden=3),
}


@pytest.mark.parametrize("window", list(WINDOWS))
def test_whatever_the_window_the_metrics_are_finite_and_the_page_has_a_relative_path(reporter: DriftReporter, window: str) -> None:
    metrics, path = reporter.report(TASK, a_window(60, 1), WINDOWS[window](), at=NOON)
    assert all(math.isfinite(value) for value in metrics.values())
    assert not Path(path).is_absolute()
    assert path.startswith("reports/")


def test_two_windows_have_two_pages(reporter: DriftReporter) -> None:
    pages = {reporter.report(TASK, a_window(60, 1), a_window(60, 2), at=NOON + timedelta(seconds=n))[1] for n in range(2)}
    assert len(pages) == 2
