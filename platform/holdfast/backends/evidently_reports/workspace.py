"""The local Evidently workspace: one project per task, one run per window, and the command that opens it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.backends.evidently_reports.quiet import silence
from holdfast.domain.drift import ESTIMATED, EVIDENCE
from holdfast.domain.scorers import NAMES

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

KEPT_RUNS = 100
"""Of each task; a run is about a quarter of a megabyte."""


def ui_command(home: Path, *, host: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Arguments and added environment of the Evidently UI over the workspace of an embedded home. Makes the folder."""
    folder = home / "evidently"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    program = "from evidently.cli import app; app()"
    arguments = [sys.executable, "-W", "ignore", "-c", program, "ui", "--host", host, "--port", str(port), "--workspace", str(folder)]
    return arguments, {"DO_NOT_TRACK": "1"}


def add_run(folder: Path, task: str, snapshot: Snapshot, *, name: str, several: bool = False) -> None:
    """Add one run to the project of a task; the oldest beyond KEPT_RUNS go. ``several``: its answers are sets or spans."""
    silence()
    from evidently.ui.workspace import Workspace

    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    workspace = Workspace.create(str(folder))
    found = [p for p in workspace.search_project(task) if p.name == task]
    project = found[0] if found else _create(workspace, task, several=several)
    workspace.add_run(project.id, snapshot, include_data=False, name=name)
    for old in sorted(workspace.list_runs(project.id), key=str)[:-KEPT_RUNS]:  # their ids grow with time
        workspace.delete_run(project.id, old)


def _create(workspace: Any, task: str, *, several: bool) -> Any:
    from evidently.sdk.models import DashboardPanelPlot, PanelMetric

    project = workspace.create_project(task, description="Windows of recent traffic against the reference of the version that answered.")
    inputs = ("text_length", "word_count", "unseen_word_share", "embedding_pc1", "embedding_pc2")
    panels = {
        "Drift of the answers (Jensen-Shannon distance)": ("prediction", "confidence", *(("answer_size",) if several else ())),
        "Drift of the inputs (Jensen-Shannon distance)": inputs,
    }
    monitors = [PanelMetric(metric="HoldfastStatistic", metric_labels={"figure": EVIDENCE + name}, legend=name) for name in NAMES]
    title = "Evidence of the monitors (1 is an alarm)"
    project.dashboard.add_panel(DashboardPanelPlot(title=title, size="full", values=monitors, plot_params={"plot_type": "line"}))
    for title, columns in panels.items():
        values = [PanelMetric(metric="ValueDrift", metric_labels={"column": column}, legend=column) for column in columns]
        project.dashboard.add_panel(DashboardPanelPlot(title=title, size="full", values=values, plot_params={"plot_type": "line"}))
    if not several:  # Evidently does not judge sets and spans, and an empty panel would say that nothing is labelled
        accuracy = [
            PanelMetric(metric="Accuracy", legend="on labelled rows"),
            PanelMetric(metric="HoldfastStatistic", metric_labels={"figure": ESTIMATED}, legend="estimated"),
        ]
        title = "Accuracy, on labelled rows and estimated"
        project.dashboard.add_panel(DashboardPanelPlot(title=title, size="full", values=accuracy, plot_params={"plot_type": "line"}))
    return project
