"""A figure of ours as a metric of Evidently: it stands in the same report and on the same page, and panels draw it over time.

Importing this module imports Evidently. A run that holds such metrics opens in a stock Evidently, which need not know of it.
"""

from __future__ import annotations

from typing import Any

from evidently.core.metric_types import SingleValueCalculation, SingleValueMetric

COLUMN = "holdfast: "
"""Begins the name of the column that carries a figure into the report: the same in every row, for it is of the window, not of a row."""


class HoldfastStatistic(SingleValueMetric):  # type: ignore[misc]  # Evidently is untyped
    """A figure that Holdfast computed: the evidence of a monitor, or an estimate."""

    figure: str
    """Its name, as people read it."""


class HoldfastStatisticCalculation(SingleValueCalculation[HoldfastStatistic]):  # type: ignore[misc]
    """Reads the figure off its column."""

    def calculate(self, context: Any, current_data: Any, reference_data: Any) -> Any:
        """The figure of the current window; the reference has none."""
        return self.result(float(current_data.as_dataframe()[COLUMN + self.metric.figure].iloc[-1])), None

    def display_name(self) -> str:
        """Title of its widget."""
        return f"Holdfast: {self.metric.figure}"
