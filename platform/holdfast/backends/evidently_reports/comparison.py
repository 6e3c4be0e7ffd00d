"""One Evidently run over a comparison, and its numbers under stable names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from holdfast.backends.evidently_reports.columns import MIN_ROWS, NUMBERS, Comparison
from holdfast.backends.evidently_reports.quiet import silence

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

QUALITY = {"Accuracy": "accuracy", "Precision": "precision", "Recall": "recall", "F1Score": "f1"}


def run_comparison(comparison: Comparison, at: datetime, figures: Mapping[str, float]) -> Snapshot:
    """Figures of ours, drift of every usable column; quality too where enough rows of both windows are labelled."""
    silence()
    from evidently import DataDefinition, Dataset, MulticlassClassification, Report
    from evidently.presets import ClassificationQuality, ClassificationQualityByLabel, DataDriftPreset

    from holdfast.backends.evidently_reports.statistic import COLUMN, HoldfastStatistic

    drift = DataDriftPreset(
        columns=list(comparison.columns),
        cat_method="jensenshannon",
        num_method="jensenshannon",
        per_column_threshold=comparison.thresholds,
    )
    judged = comparison.quality is None and min(comparison.labelled_count, int(comparison.reference["target"].notna().sum())) >= MIN_ROWS
    definition = DataDefinition(
        text_columns=["text"],
        categorical_columns=["prediction", "target"] if judged else ["prediction"],
        numerical_columns=[c for c in comparison.columns if c != "prediction" and c not in NUMBERS[1:]],
        numerical_descriptors=[c for c in comparison.columns if c in NUMBERS[1:]],
        classification=[MulticlassClassification(target="target", prediction_labels="prediction")] if judged else None,
    )
    own = [HoldfastStatistic(figure=name) for name in figures]
    presets = [*own, drift, *((ClassificationQuality(), ClassificationQualityByLabel()) if judged else ())]
    carried = {COLUMN + name: value for name, value in figures.items()}
    current, reference = (_data(Dataset, table.assign(**carried), definition) for table in (comparison.current, comparison.reference))
    return Report(presets, include_tests=False).run(current, reference, timestamp=at)


def _data(dataset: Any, table: Any, definition: Any) -> Any:
    """Texts themselves stay out: what Evidently never sees, no page and no workspace can show."""
    return dataset.from_pandas(table.assign(text=""), data_definition=definition)


def distances(comparison: Comparison) -> dict[str, float]:
    """Jensen-Shannon distance of each column, by Evidently's function; without a report, for checking the thresholds."""
    silence()
    from evidently.legacy.calculations.stattests.jensenshannon import jensenshannon_stat_test
    from evidently.legacy.core import ColumnType

    found = {}
    for name, threshold in comparison.thresholds.items():
        kind = ColumnType.Categorical if name == "prediction" else ColumnType.Numerical
        before, now = comparison.reference[name].dropna(), comparison.current[name].dropna()
        found[name] = float(jensenshannon_stat_test(before, now, kind, threshold).drift_score)
    return found


def measures(snapshot: Snapshot, comparison: Comparison) -> dict[str, float]:
    """Finite numbers by stable name."""
    found: dict[str, float] = {f"threshold.{name}": value for name, value in comparison.thresholds.items()}
    for metric in snapshot.dict()["metrics"]:
        kind, value = metric["config"]["type"].rsplit(":", 1)[-1], metric["value"]
        if kind == "ValueDrift":
            found[f"drift.{metric['config']['column']}"] = float(value)
        elif kind == "DriftedColumnsCount":
            found["drift.share_columns"] = float(value["share"])
        elif kind in QUALITY:
            found[f"quality.{QUALITY[kind]}"] = float(value)
    found |= {f"quality.{name}": value for name, value in (comparison.quality or {}).items()}
    directions = [value for name, value in found.items() if name.startswith("drift.embedding_pc")]
    if directions:
        found["drift.embedding"] = max(directions)
    return {name: value for name, value in sorted(found.items()) if math.isfinite(value)}
