"""`holdfast backtest`: what the loop would have done on your own history."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from holdfast.bootstrap import backtest as bootstrap_backtest
from holdfast.cli.backtest_compare import run_both, show_comparison
from holdfast.cli.backtest_plot import show
from holdfast.cli.progress_bar import replay_bar
from holdfast.domain.backtest import Backtest, ReplayPlan, check_plan, derived_contract, warmup_rows
from holdfast.domain.datasets import HistoryRow
from holdfast.domain.records import to_plain
from holdfast.domain.tasks import Kind, TaskContract
from holdfast.errors import DataInvalid, RequestInvalid, StorageRefused
from holdfast.flows.backtest import backtest
from holdfast.settings import read_settings

Page = Callable[[Path], None]
"""Writes the page of a result."""
HELP = """Replay a dated, labelled history and say what the loop would have done.

HISTORY is CSV, TSV, JSONL or Parquet (the text forms also gzipped), one row per event, with a text, a label and a time. The oldest
rows train the first version; the rest is answered in order of time by three arms: the loop itself (the same monitors, diagnosis,
training, gate and promotion as in operation, on a stepped clock), the frozen first version, and a bound that is trained anew before
each period on every label so far. Works offline and starts nothing.

Without --policy the rung is `head` (a classifier on the frozen embedding; minutes instead of hours), there is no quality floor and no
cool-down, and drift of the inputs alone may start a retraining. With --policy FILE (a task contract) its monitoring, retraining and
promotion policy, base and token limit are used, so `rung: lora` or `smallest` replays what those would do; its labels are replaced by
those of the warm-up, and new ones are allowed.

With --compare A B (two contracts of one task) the history is replayed under both, and their decisions stand side by side: the same,
earlier or later, or taken by one alone; with the difference of their answers, event by event, and its 95% interval.

Sets of labels (--kind multi-label) and spans (--kind extraction) are scored by the mean F1 of a row, unless a policy's metric says
otherwise; the quality monitor counts answers that are wrong anywhere.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("backtest", help=HELP)(_command)


def _command(  # noqa: PLR0917 - one parameter per option
    history: Annotated[Path, typer.Argument(help="The file.")],
    text: Annotated[str | None, typer.Option(help="Column of the texts; absent means the first of the usual names.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of the labels. Of single labels, rows with a list of several are left out.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="Column of the times.")] = None,
    kind: Annotated[Kind, typer.Option(help="`multi-label`: lists of labels, or a|b; `extraction`: lists of spans.")] = "classification",
    warmup_share: Annotated[float, typer.Option(help="Share of the rows, the oldest, that the first version is trained on.")] = 0.2,
    label_delay: Annotated[int, typer.Option(help="Events until the label of an event is known.")] = 100,
    label_share: Annotated[float, typer.Option(help="Share of events whose label ever becomes known to the loop.")] = 1.0,
    policy: Annotated[Path | None, typer.Option(help="A task contract, for its policies.")] = None,
    seed: Annotated[int, typer.Option(help="Decides which labels become known.")] = 0,
    periods: Annotated[int, typer.Option(help="Periods of the table, of equal event count.")] = 20,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Two task contracts: replay both and say where they decide otherwise.")
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the result as JSON; - writes it to standard output.")] = None,
    html_out: Annotated[Path | None, typer.Option("--html", help="Write a page with the figure.")] = None,
) -> None:
    plan = ReplayPlan(warmup_share=warmup_share, label_delay=label_delay, label_share=label_share, seed=seed, period_count=periods)
    check_plan(plan)
    if policy is not None and compare is not None:
        raise RequestInvalid(place="--policy", problem="--compare names both policies", remedy="leave --policy out")
    _check_targets(json_out, html_out)
    aside = Console(stderr=True)
    rows = bootstrap_backtest.read_history(history, text=text, label=label, time=time, kind=kind, say=aside.print)
    title, source = history.name, str(history)
    if compare is None:
        one = run(rows, contract_for(rows, plan, policy, kind=kind, source=source), plan, aside)
        write, tell = partial(bootstrap_backtest.write_page, one, title=title), partial(show, one, Console(), title=title)
        _deliver(one, write, tell, json_out, html_out)
        return
    both = run_both(rows, compare, plan, aside, contract_of=lambda path: contract_for(rows, plan, path, kind=kind, source=source))
    write, tell = partial(bootstrap_backtest.write_comparison, both, title=title), partial(show_comparison, both, Console(), title=title)
    _deliver(both, write, tell, json_out, html_out)


def _deliver(result: object, write: Page, tell: Callable[[], None], json_out: Path | None, html_out: Path | None) -> None:
    if html_out is not None:
        write(html_out)
        Console(stderr=True).print(f"The page is {html_out}")
    if json_out is None or str(json_out) != "-":
        tell()
    if json_out is not None:
        _write_json(result, json_out)


def contract_for(
    rows: tuple[HistoryRow, ...], plan: ReplayPlan, policy: Path | None, *, kind: Kind = "classification", source: str
) -> TaskContract:
    """The contract that a history is replayed under. Raises ContractInvalid, DataInvalid."""
    try:
        warmup = rows[: warmup_rows(rows, plan)]
    except DataInvalid as error:
        raise DataInvalid(**{**error.fields, "source": source}) from None
    derived = derived_contract(warmup, kind=kind)
    if policy is None:
        return derived
    given = bootstrap_backtest.read_contract(policy)
    if given.kind != kind:
        raise DataInvalid(
            source=str(policy), problem=f"it is of kind {given.kind}, the history is read as {kind}", place="kind",
            remedy=f"write --kind {given.kind}.",
        )  # fmt: skip
    return replace(given, labels=derived.labels, labels_open=True)


def run(rows: tuple[HistoryRow, ...], contract: TaskContract, plan: ReplayPlan, aside: Console) -> Backtest:
    """Replay in a folder that is gone afterwards, with a progress bar on ``aside``."""
    with tempfile.TemporaryDirectory(prefix="holdfast-backtest-") as folder, replay_bar(aside) as say:
        return backtest(bootstrap_backtest.for_backtest(read_settings(), Path(folder)), contract, rows, plan, say)


def _check_targets(*targets: Path | None) -> None:
    """A result of minutes is not lost to a wrong folder name."""
    for target in targets:
        if target is not None and str(target) != "-" and not target.absolute().parent.is_dir():
            raise StorageRefused(place=str(target), reason="its folder does not exist")


def _write_json(result: object, target: Path) -> None:
    text = json.dumps(to_plain(result), indent=2, ensure_ascii=False) + "\n"
    if str(target) == "-":
        print(text, end="")
        return
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageRefused(place=str(target), reason=error.strerror or str(error)) from error
