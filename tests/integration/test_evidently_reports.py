"""Evidently itself: what a report says of changed and unchanged windows, and what it leaves on the disk."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from holdfast.backends.evidently_reports import EvidentlyReporter, reporter, ui_command
from holdfast.backends.evidently_reports.columns import FALSE_DRIFT, MAX_ROWS, compare
from holdfast.domain.windows import WindowRows
from holdfast.errors import StorageRefused
from holdfast.testing.builders import TASK, a_window
from holdfast.testing.clock import NOON
from holdfast.testing.several import topics


def worded(row_count: int, seed: int, words: tuple[str, ...] = ("refund", "parcel", "login", "card", "invoice", "late")) -> WindowRows:
    """Rows with texts of a few words, so that descriptors vary."""
    random = np.random.default_rng(seed + 1_000)
    texts = tuple(" ".join(random.choice(words, size=random.integers(3, 12))) for _ in range(row_count))
    return dataclasses.replace(a_window(row_count, seed), texts=texts)


def test_a_changed_window_moves_the_figures_of_what_changed_and_no_other(tmp_path: Path) -> None:
    now = worded(400, 2, words=("crypto", "wallet", "refund"))
    now = dataclasses.replace(now, predictions=("refund",) * 400)
    metrics, page = EvidentlyReporter(tmp_path).report(TASK, worded(400, 1), now, at=NOON)
    drifted = {n.removeprefix("drift.") for n, v in metrics.items() if v > metrics.get(n.replace("drift.", "threshold."), 1.0)}
    assert {"prediction", "unseen_word_share"} <= drifted
    assert "confidence" not in drifted
    assert (tmp_path / page).stat().st_size > 100_000


def test_labelled_rows_give_the_accuracy_of_exactly_those_rows(tmp_path: Path) -> None:
    now = worded(300, 2)
    now = dataclasses.replace(now, labels=(*now.labels[:100], *(None,) * 200))
    metrics, _ = EvidentlyReporter(tmp_path).report(TASK, worded(300, 1), now, at=NOON)
    right = sum(said == true for said, true in zip(now.predictions[:100], now.labels[:100], strict=True))
    assert metrics["quality.accuracy"] == pytest.approx(right / 100)
    assert metrics["rows.labelled"] == 100


def test_without_enough_labels_quality_is_absent_rather_than_guessed(tmp_path: Path) -> None:
    now = dataclasses.replace(worded(100, 2), labels=("billing", *(None,) * 99))
    metrics, _ = EvidentlyReporter(tmp_path).report(TASK, worded(100, 1), now, at=NOON)
    assert not [name for name in metrics if name.startswith("quality.")]


def test_unchanged_columns_stay_under_their_threshold_as_often_as_stated() -> None:
    """30 pairs of windows of unequal size, every column: 0.01 is stated, the count lies within its sampling error."""
    from holdfast.backends.evidently_reports.comparison import distances

    crossed = looked = 0
    for seed in range(30):
        comparison = compare(worded(500, 2 * seed), worded(150, 2 * seed + 1))
        for column, distance in distances(comparison).items():
            looked += 1
            crossed += distance > comparison.thresholds[column]
    assert crossed / looked < 2.5 * FALSE_DRIFT


def test_a_long_window_is_thinned_over_its_whole_length() -> None:
    current = a_window(MAX_ROWS * 2, 2)
    comparison = compare(a_window(60, 1), current)
    assert len(comparison.current) == MAX_ROWS
    assert comparison.current["text"].iloc[-1] == current.texts[-1]


def test_no_text_of_a_request_reaches_the_page_or_the_workspace(tmp_path: Path) -> None:
    secret = "4929-1111-2222"
    now = dataclasses.replace(worded(60, 2), texts=tuple(f"{secret} row {n}" for n in range(60)))
    EvidentlyReporter(tmp_path).report(TASK, worded(60, 1), now, at=NOON)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_the_newest_pages_are_kept(tmp_path: Path) -> None:
    reports = EvidentlyReporter(tmp_path)
    empty = a_window(0, 1)
    pages = [reports.report(TASK, empty, empty, at=NOON + timedelta(seconds=n))[1] for n in range(reporter.KEPT_PAGES + 5)]
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.html")) == pages[5:]


def test_a_page_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("in the way")
    with pytest.raises(StorageRefused, match="reports"):
        EvidentlyReporter(tmp_path).report(TASK, a_window(0), a_window(0), at=NOON)


def test_the_workspace_has_one_project_per_task_with_a_run_per_window(tmp_path: Path) -> None:
    reports = EvidentlyReporter(tmp_path)
    for n in range(2):
        reports.report(TASK, worded(60, 1), worded(60, 2 + n), at=NOON + timedelta(minutes=n))
    projects = [json.loads(path.read_text()) for path in (tmp_path / "evidently").glob("*/metadata.json")]
    assert [project["name"] for project in projects] == [TASK]
    assert len(list((tmp_path / "evidently").glob("*/snapshots/*.json"))) == 2


def test_figures_of_ours_stand_in_the_page_and_in_the_run_which_a_stock_evidently_reads(tmp_path: Path) -> None:
    figures = {"evidence of quality": 0.25, "estimated accuracy": 0.875, "broken": float("nan")}
    _, page = EvidentlyReporter(tmp_path).report(TASK, worded(60, 1), worded(60, 2), at=NOON, figures=figures)
    assert "Holdfast: evidence of quality" in (tmp_path / page).read_text()
    read = f"""
from evidently.ui.workspace import Workspace
workspace = Workspace({str(tmp_path / "evidently")!r})
project = workspace.list_projects()[0]
run = workspace.get_run(project.id, workspace.list_runs(project.id)[0])
places = [(r, r.metric_value_location.metric.params) for r in run.metric_results.values()]
print(sorted((params["figure"], r.value) for r, params in places if "figure" in params))
"""
    told = subprocess.run([sys.executable, "-W", "ignore", "-c", read], capture_output=True, text=True, check=True, timeout=120)
    assert told.stdout.strip().splitlines()[-1] == "[('estimated accuracy', 0.875), ('evidence of quality', 0.25)]"


def test_nothing_is_told_to_anybody_while_a_report_is_made(tmp_path: Path) -> None:
    """Every look-up of a name and every connection of the process that makes it, from its first import on."""
    make = f"""
import sys
asked = []
sys.addaudithook(lambda event, given: asked.append(event) if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto") else None)
from pathlib import Path
from holdfast.backends.evidently_reports import EvidentlyReporter
from holdfast.testing.builders import TASK, a_window
from holdfast.testing.clock import NOON
metrics, page = EvidentlyReporter(Path({str(tmp_path)!r})).report(TASK, a_window(60, 1), a_window(60, 2), at=NOON)
import evidently, threading
[thread.join(5) for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]
print(len(metrics) > 5, asked)
"""
    environment = {name: value for name, value in os.environ.items() if name != "DO_NOT_TRACK"}  # noqa: TID251
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", make], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert told.stdout.strip().splitlines()[-1] == "True []"


def test_the_module_is_light_until_a_report_is_made() -> None:
    check = "import sys, holdfast.backends.evidently_reports; sys.exit('evidently' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_the_command_of_the_ui_starts(tmp_path: Path) -> None:
    argv, env = ui_command(tmp_path, host="127.0.0.1", port=1)
    shown = subprocess.run([*argv, "--help"], env=os.environ | env, capture_output=True, text=True, check=False, timeout=120)  # noqa: TID251
    assert shown.returncode == 0
    assert "workspace" in shown.stdout


def test_sets_and_spans_are_compared_by_size_and_presence_and_judged_by_both_measures(tmp_path: Path) -> None:
    def window(seed: int, *, changed: bool) -> WindowRows:
        said = tuple(e.label for e in topics(seed, 300, changed=changed))
        return dataclasses.replace(worded(300, seed), predictions=said, labels=(*said[:50], *("[]",) * 50, *(None,) * 200))

    metrics, page = EvidentlyReporter(tmp_path).report(TASK, window(1, changed=False), window(2, changed=True), at=NOON)
    assert metrics["drift.answer_size"] > metrics["threshold.answer_size"]
    assert metrics["drift.prediction"] > metrics["threshold.prediction"]
    assert "drift.says billing" in metrics
    assert 0.5 <= metrics["quality.accuracy"] < 0.9
    assert metrics["quality.accuracy"] <= metrics["quality.f1"] <= 1.0
    assert (tmp_path / page).stat().st_size > 100_000
    assert "answer_size" in panels(tmp_path)
    assert "Accuracy" not in panels(tmp_path), "Evidently judges no sets: the panel would stay empty for ever"


def test_single_labels_have_a_panel_of_their_accuracy(tmp_path: Path) -> None:
    EvidentlyReporter(tmp_path).report(TASK, worded(60, 1), worded(60, 2), at=NOON)
    assert "Accuracy, on labelled rows and estimated" in panels(tmp_path)


def panels(home: Path) -> str:
    """The dashboard of the one project, as it is stored."""
    (dashboard,) = [path for path in (home / "evidently").glob("*/*.json") if "Drift of the answers" in path.read_text()]
    return dashboard.read_text()
