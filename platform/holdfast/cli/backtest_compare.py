"""`holdfast backtest --compare A B`: two policies on one history, decision by decision."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from holdfast.bootstrap import backtest as bootstrap_backtest
from holdfast.cli.progress_bar import replay_bar
from holdfast.domain.backtest import ReplayPlan, date_form
from holdfast.domain.comparison import Comparison, Decision, check_comparable
from holdfast.domain.datasets import HistoryRow
from holdfast.domain.tasks import TaskContract, titled
from holdfast.flows.backtest_stage import Stage
from holdfast.flows.compare import compare_policies
from holdfast.settings import read_settings

ContractOf = Callable[[Path], TaskContract]
"""The contract that a history is replayed under, from a file."""


def run_both(
    rows: Sequence[HistoryRow], paths: tuple[Path, Path], plan: ReplayPlan, aside: Console, *, contract_of: ContractOf
) -> Comparison:
    """Replay under both contracts in a folder that is gone afterwards. Raises ContractInvalid, DataInvalid."""
    given = tuple(bootstrap_backtest.read_contract(path) for path in paths)
    check_comparable(given[0], given[1], sources=(str(paths[0]), str(paths[1])))
    contracts = contract_of(paths[0]), contract_of(paths[1])
    with tempfile.TemporaryDirectory(prefix="holdfast-backtest-") as folder, replay_bar(aside) as say:

        def stage(name: str) -> Stage:
            own = Path(folder) / name
            own.mkdir()
            return bootstrap_backtest.for_backtest(read_settings(), own, cache=Path(folder) / "cache")

        return compare_policies((lambda: stage("a"), lambda: stage("b")), contracts, rows, plan, names=_names(paths), say=say)


def show_comparison(result: Comparison, console: Console, *, title: str) -> None:
    """Print the decisions side by side, the figures of both, and the sentence."""
    console.print(escape(f"Two policies on {title}: A is {result.a.policy}, B is {result.b.policy}") + "\n", style="bold", highlight=False)
    form = date_form(result.replays[0].periods)
    table = Table("decision", "A", "B", "B beside A", title="Decisions", title_justify="left")
    for pair in result.decisions:
        table.add_row(pair.kind, _cell(pair.a, form), _cell(pair.b, form), pair.words)
    metric = titled(result.replays[0].totals.metric)
    head = (metric.lower(), "95% interval", "alerts", "retrainings", "promotions", "training s", "CPU s of the loop")
    figures = Table("", *head, title="Figures", title_justify="left")
    for name, arm in (("A", result.a), ("B", result.b)):
        mean = arm.accuracy
        figures.add_row(
            name, f"{mean.mean:.3f}", f"{mean.lower:.3f} to {mean.upper:.3f}", str(arm.alert_count), str(arm.retraining_count),
            str(arm.promotion_count), f"{arm.train_seconds:.1f}", f"{arm.cpu_seconds:.1f}",
        )  # fmt: skip
    if table.row_count:
        console.print(table)
    console.print(figures)
    d = result.difference
    console.print(f"B minus A, event by event: {d.mean:+.4f} ({d.lower:+.4f} to {d.upper:+.4f}).", highlight=False)
    console.print(result.summary, highlight=False)


def _cell(decision: Decision | None, form: str) -> str:
    return "–" if decision is None else escape(f"{decision.event_index} ({decision.at:{form}}) {decision.said}".rstrip())


def _names(paths: tuple[Path, Path]) -> tuple[str, str]:
    """Names of the files; with their folders where the names alone are the same."""
    a, b = paths
    return (str(a), str(b)) if a.name == b.name else (a.name, b.name)
