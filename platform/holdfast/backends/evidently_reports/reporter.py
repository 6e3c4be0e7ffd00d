"""Drift reports by Evidently: one page per window that people can open, and a run in its workspace. It shows; monitors decide."""

from __future__ import annotations

import html
import math
import tempfile
import threading
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from holdfast.domain.answers import of_several
from holdfast.domain.ids import TaskName
from holdfast.domain.windows import WindowRows
from holdfast.errors import StorageRefused

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

KEPT_PAGES = 20
"""Of each task; a page is about 4 MB whatever the window."""
log = structlog.get_logger(__name__)


class EvidentlyReporter:
    """Compares windows with Evidently. Needs no network; costs about a second a report, and five for the first."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()

    def report(
        self, task: TaskName, reference: WindowRows, current: WindowRows, *, at: datetime, figures: Mapping[str, float] | None = None
    ) -> tuple[Mapping[str, float], str]:
        """Finite metrics by stable name, and the page's path relative to the home. A window that cannot be compared gives no metric.

        Names: `rows.reference|current|labelled`; `drift.COLUMN` and `threshold.COLUMN` (Jensen-Shannon distances, 0..0.833) for
        prediction, confidence, text_length, word_count, non_letter_share, unseen_word_share, embedding_pc1 to 5; `drift.embedding`
        (the largest of those five); `drift.share_columns`; `quality.accuracy|precision|recall|f1` where 30 rows are labelled.
        Of sets and spans: prediction is the leading label, answer_size and `says LABEL` (of frequent labels) are columns too, and
        quality has accuracy and f1 alone. ``figures``, name to value, stand in the page and the run as metrics of their own.

        Raises:
            StorageRefused: when the page cannot be written.
        """
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Evidently, its plots and its legacy pydantic warn on every import and run
            metrics: dict[str, float] = {"rows.reference": float(len(reference)), "rows.current": float(len(current))}
            snapshot, reason = self._run(task, (reference, current), at, metrics, figures or {})
            try:
                return metrics, self._write(task, at, snapshot, reason, several=of_several((*reference.predictions, *current.predictions)))
            except OSError as error:
                raise StorageRefused(place=str(self._home / "reports"), reason=error.strerror or str(error)) from error

    def _run(
        self, task: TaskName, windows: tuple[WindowRows, WindowRows], at: datetime, metrics: dict[str, float], figures: Mapping[str, float]
    ) -> tuple[Snapshot | None, str]:
        """The finished comparison, or why there is none."""
        from holdfast.backends.evidently_reports.columns import MIN_ROWS, compare
        from holdfast.backends.evidently_reports.comparison import measures, run_comparison

        reference, current = windows
        if min(len(reference), len(current)) < MIN_ROWS:
            return None, f"{len(reference)} reference rows and {len(current)} current ones; {MIN_ROWS} of each are needed to compare"
        try:
            comparison = compare(reference, current)
            metrics["rows.labelled"] = float(comparison.labelled_count)
            snapshot = run_comparison(comparison, at, {name: value for name, value in figures.items() if math.isfinite(value)})
            metrics.update(measures(snapshot, comparison))
        except Exception as error:  # whatever it is that Evidently dislikes in a window, a report is no reason to stop watching
            log.warning("report.failed", task=task, error=f"{type(error).__name__}: {error}"[:300])
            return None, f"Evidently could not compare these windows: {type(error).__name__}: {error}"
        return snapshot, ""

    def _write(self, task: TaskName, at: datetime, snapshot: Snapshot | None, reason: str, *, several: bool) -> str:
        folder = self._home / "reports" / task
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        page = folder / f"{at:%Y%m%dT%H%M%S%fZ}.html"
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as draft:
            half = Path(draft) / "page.html"
            if snapshot is None:
                half.write_text(_apology(task, at, reason), encoding="utf-8")
            else:
                snapshot.save_html(str(half))
            half.replace(page)
        for old in sorted(folder.glob("*.html"))[:-KEPT_PAGES]:
            old.unlink(missing_ok=True)
        if snapshot is not None:
            self._show(task, at, snapshot, several=several)
        return str(page.relative_to(self._home))

    def _show(self, task: TaskName, at: datetime, snapshot: Snapshot, *, several: bool) -> None:
        """Add the run to the workspace that the Evidently UI opens. The workspace is a view: failing to write it is only logged."""
        from holdfast.backends.evidently_reports.workspace import add_run

        try:
            add_run(self._home / "evidently", task, snapshot, name=f"{at:%Y-%m-%d %H:%M:%S} UTC", several=several)
        except Exception as error:
            log.warning("report.not_shown", task=task, error=f"{type(error).__name__}: {error}"[:300])


def _apology(task: str, at: datetime, reason: str) -> str:
    words = html.escape(f"{task}, {at:%Y-%m-%d %H:%M:%S} UTC: {reason}.")
    return f'<!doctype html><meta charset="utf-8"><title>No report</title><h1>No report</h1><p>{words}</p>\n'
