"""A backtest on the terminal: a plot in characters and the tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from holdfast.domain.backtest import Backtest, Period, date_form
from holdfast.domain.tasks import titled

ROWS = 12
CELL = 3
"""Columns of the terminal per period."""


def show(result: Backtest, console: Console, *, title: str) -> None:
    """Print plot, periods, what the loop did, and the totals."""
    console.print(f"[bold]Backtest of {title}[/bold]\n")
    console.print("\n".join(plot(result)), highlight=False, markup=False, soft_wrap=True)
    console.print(_periods(result.periods, titled(result.totals.metric)))
    for table in _deeds(result):
        console.print(table)
    t = result.totals
    gap = "" if t.share_of_gap is None else f", {t.share_of_gap:.0%} of the gap"
    console.print(
        f"{titled(t.metric)} over {t.events} events: "
        f"loop [bold]{t.accuracy_loop:.3f}[/bold]{gap}; frozen first version {t.accuracy_frozen:.3f}; "
        f"retrained on all labels {t.accuracy_bound:.3f}."
    )
    console.print(
        f"{t.alert_count} alerts, {t.retraining_count} retrainings, {t.promotion_count} promotions; {t.labels_known} labels had come, "
        f"{t.labels_new} classes were new; rung {t.rung}; {t.seconds:.0f} s."
    )


def plot(result: Backtest) -> list[str]:
    """Lines of a plot: `●` the loop, `·` frozen, `–` the bound; below, per period, the numbers of alerts, retrainings, promotions."""
    periods = result.periods
    shares = [value for p in periods for value in (p.accuracy_loop, p.accuracy_frozen, p.accuracy_bound)]
    low, high = min(shares), max(shares)
    step = max((high - low) / (ROWS - 1), 0.005)
    grid = [[" " * CELL for _ in periods] for _ in range(ROWS)]
    for column, p in enumerate(periods):
        for value, sign in ((p.accuracy_bound, "–"), (p.accuracy_frozen, "·"), (p.accuracy_loop, "●")):
            grid[min(ROWS - 1, round((high - value) / step))][column] = f" {sign} "
    lines = [f"{high - row * step:6.3f} │{''.join(cells)}" for row, cells in enumerate(grid)]
    lines.append("       └" + "─" * CELL * len(periods))
    for name, marks in (("alert", result.alerts), ("train", result.retrainings), ("promote", result.promotions)):
        counts = [sum(p.first_index <= m.event_index < p.first_index + p.events for m in marks) for p in periods]
        lines.append(f"{name:>7} " + "".join(f"{count or '':^{CELL}}" for count in counts))
    return [*lines, "        ● the loop   · frozen first version   – retrained on all labels", ""]


def _periods(periods: Sequence[Period], title: str) -> Table:
    table = Table("from", "to", "events", "loop", "frozen", "bound", title=title, title_justify="left")
    form = date_form(periods)
    for p in periods:
        table.add_row(
            f"{p.start:{form}}", f"{p.end:{form}}", str(p.events), f"{p.accuracy_loop:.3f}", f"{p.accuracy_frozen:.3f}",
            f"{p.accuracy_bound:.3f}",
        )  # fmt: skip
    return table


def _deeds(result: Backtest) -> list[Table]:
    form = date_form(result.periods)
    alerts = Table("at", "event", "began at", "monitors", "diagnosis", title="Alerts", title_justify="left")
    for a in result.alerts:
        alerts.add_row(f"{a.at:{form}}", str(a.event_index), str(a.onset_index), a.monitor, a.diagnosis)
    trained = Table("asked at", "event", "labels", "seconds", "verdict", "reason", title="Retrainings", title_justify="left")
    for r in result.retrainings:
        trained.add_row(f"{r.requested_at:{form}}", str(r.event_index), str(r.labels_used), f"{r.seconds:.1f}", r.verdict, r.reason)
    moved = Table("at", "event", "adapter", title="Promotions", title_justify="left")
    for p in result.promotions:
        moved.add_row(f"{p.at:{form}}", str(p.event_index), p.adapter_digest[:19])
    return [table for table in (alerts, trained, moved) if table.row_count]
