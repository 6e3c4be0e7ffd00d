"""Plots and pages: whatever the span, no two instants below them read alike; what is drawn bears the name of its metric."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console

from holdfast.api.console.plots import score_plot, sparkline
from holdfast.api.series import WindowPoint
from holdfast.backends.backtest_page import comparison_page, figure, page
from holdfast.cli.backtest_compare import show_comparison
from holdfast.cli.backtest_plot import show
from holdfast.domain.backtest import Backtest, Outcome, Period, Totals
from holdfast.domain.comparison import Comparison, Decision, Replay, compare
from holdfast.domain.records import to_plain
from holdfast.domain.tasks import Metric
from holdfast.testing.clock import NOON
from holdfast.testing.record_builders import a_contract

SPANS = [timedelta(seconds=2), timedelta(minutes=3), timedelta(hours=5), timedelta(days=2), timedelta(days=5), timedelta(days=400)]


def points(span: timedelta) -> list[WindowPoint]:
    ats = [NOON + span * (n / 10) for n in range(11)]
    return [WindowPoint(first_at=at, last_at=at, value=0.9, lower=0.8, upper=0.95, row_count=20) for at in ats]


def backtest(span: timedelta, metric: Metric = "accuracy") -> Backtest:
    periods = tuple(
        Period(
            start=NOON + span * (n / 10), end=NOON + span * ((n + 1) / 10), first_index=10 * n, events=10, accuracy_loop=0.9,
            accuracy_frozen=0.8, accuracy_bound=0.9,
        )
        for n in range(10)
    )  # fmt: skip
    totals = Totals(
        rows=200, warmup_rows=100, events=100, labels_known=90, labels_new=0, metric=metric, accuracy_loop=0.9, accuracy_frozen=0.8,
        accuracy_bound=0.9, share_of_gap=1.0, alert_count=0, retraining_count=0, promotion_count=0, rung="head", run_length_events=1000,
        seconds=1.0,
    )  # fmt: skip
    return Backtest(periods=periods, alerts=(), retrainings=(), promotions=(), totals=totals)


@pytest.mark.parametrize("span", SPANS)
def test_no_two_instants_of_the_accuracy_plot_read_alike(span: timedelta) -> None:
    drawn = str(score_plot(points(span), a_contract(), []))
    ticks = re.findall(r'<text class="tick"[^>]*>([^<]*)</text>', drawn)
    assert len(ticks) == len(set(ticks))
    assert sum("%" not in tick for tick in ticks) >= 2


@pytest.mark.parametrize("span", SPANS[2:])
def test_no_two_dates_of_a_backtest_read_alike(span: timedelta) -> None:
    ticks = re.findall(r'<text x="[^"]*" y="398">([^<]*)</text>', figure(backtest(span)))
    assert 2 <= len(ticks) == len(set(ticks))


def test_the_periods_of_a_history_of_days_are_told_apart_in_its_tables() -> None:
    result = backtest(timedelta(days=3))
    console = Console(record=True, file=io.StringIO(), width=160)
    show(result, console, title="history.csv")
    for period in result.periods:
        assert f"{period.start:%m-%d %H:%M}" in console.export_text(clear=False)
        assert f"<td>{period.start:%m-%d %H:%M}</td><td>{period.end:%m-%d %H:%M}</td>" in page(result, title="history.csv")


def test_a_backtest_names_the_metric_of_the_contract_on_its_page_and_on_the_terminal() -> None:
    result = backtest(timedelta(days=30), "f1")
    console = Console(record=True, file=io.StringIO(), width=160)
    show(result, console, title="history.csv")
    for told in (page(result, title="history.csv"), console.export_text()):
        assert "Mean F1" in told
        assert "ccuracy" not in told
    assert to_plain(result)["totals"]["metric"] == "f1"  # type: ignore[index,call-overload]


def test_the_plot_of_a_task_names_the_metric_of_its_contract() -> None:
    contract = a_contract(kind="multi-label", metric="f1")
    drawn = score_plot(points(timedelta(days=3)), contract, []) + sparkline(points(timedelta(days=3)), 0.85, "f1")
    assert drawn.count('aria-label="Mean F1 ') == 2
    assert "ccuracy" not in drawn


def comparison() -> Comparison:
    """Two replays of a hundred events; A opens an alert at event 20, B does so ten events later and is held."""
    outcomes = [tuple(Outcome(float(n % 5 > 0 or n % better == 0), 0.0, 1.0) for n in range(100)) for better in (7, 3)]
    alert = Decision(kind="alert", said="quality <b>", event_index=20, at=NOON)
    held = Decision(kind="retraining held", said="3 more labels", event_index=40, at=NOON)
    decided = ((alert,), (replace(alert, event_index=30), held))
    replays = [
        Replay(result=backtest(timedelta(days=30)), decisions=d, outcomes=o, cpu_seconds=2.5)
        for d, o in zip(decided, outcomes, strict=True)
    ]
    return compare(("a.yaml", "b.yaml"), replays[0], replays[1])


def test_a_comparison_tells_each_decision_on_its_page_and_on_the_terminal() -> None:
    result = comparison()
    console = Console(record=True, file=io.StringIO(), width=200)
    show_comparison(result, console, title="history.csv")
    for told in (comparison_page(result, title="history.csv"), console.export_text()):
        for words in ("B 10 events later", "only in B", "3 more labels", "a.yaml", "b.yaml", result.summary):
            assert words in told
    assert "<b>" not in comparison_page(result, title="x").split("<h2>Decisions")[1]
