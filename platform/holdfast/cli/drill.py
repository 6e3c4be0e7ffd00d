"""`holdfast drill`: would the monitors see a change, how soon, and what would they call it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from holdfast.bootstrap import drill as bootstrap_drill
from holdfast.cli import show
from holdfast.cli.context import AsJson, Task, made_home
from holdfast.cli.progress_bar import progress_bar
from holdfast.domain.drill import CHANGES, POWER, Change, Drill, DrillPlan, check_plan
from holdfast.domain.ids import TaskName
from holdfast.errors import RequestInvalid
from holdfast.flows.drill import drill

HELP = """Plant a change into a shadow copy of recent traffic and say whether and when it would be seen.

The newest captures of the champion, in a random order, make a stream: quiet events, then events of which a share is changed. Changed
texts are answered by the champion itself, in this process. Monitors like those in operation read the stream from the beginning, with a
label where the capture has one; what they would say is counted over the replicates. Nothing is written: captures, alerts, monitors and
ledger stay as they are. Works whether the home runs or not.

Changes: `noise` (half of the words become random letters), `typos`, `new-class` (texts of another world, with a label of their own),
`label-swap` (labels change places in pairs, texts stay), `mix-shift` (texts answered with the commonest label take the place of
others), `truncation` (texts are cut after 16 characters), or `all`.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("drill", help=HELP)(_command)


def _command(  # noqa: PLR0917 - one parameter per option
    context: typer.Context,
    task: Task,
    change: Annotated[str, typer.Option(help=f"{', '.join(CHANGES)}, or all.")] = "all",
    share: Annotated[str, typer.Option(help="Shares of the events that are changed, between commas.")] = "0.1,0.25,0.5",
    events: Annotated[int, typer.Option(help="Events after the change, within which it must be seen.")] = 300,
    quiet: Annotated[int, typer.Option(help="Events before the change.")] = 200,
    replicates: Annotated[int, typer.Option(help="Streams of each change and share.")] = 20,
    seed: Annotated[int, typer.Option(help="Decides orders and changes.")] = 0,
    texts: Annotated[Path | None, typer.Option(help="A file of examples whose texts are the new class; absent, they are made up.")] = None,
    as_json: AsJson = False,
) -> None:
    plan = DrillPlan(changes=_changes(change), shares=_shares(share), events=events, quiet_events=quiet, replicates=replicates, seed=seed)
    check_plan(plan)
    strangers = bootstrap_drill.read_texts(texts) if texts else ()
    ground = bootstrap_drill.for_drill(made_home(context))
    with progress_bar(show.notes(), first="loading the champion", then="drilling") as say:
        result = drill(ground, TaskName(task), plan, say, strangers=strangers)
    if as_json:
        show.as_json(result)
    else:
        _tell(result)


def _changes(text: str) -> tuple[Change, ...]:
    if text == "all":
        return CHANGES
    found = tuple(change for change in CHANGES if change in text.split(","))
    if len(found) != len(set(text.split(","))):
        remedy = f"give one of {', '.join(get_args(Change))}, several between commas, or all"
        raise RequestInvalid(place="--change", problem=f"{text!r} is no change", remedy=remedy)
    return found


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        remedy = "write numbers in 0 .. 1 between commas, such as 0.1,0.5"
        raise RequestInvalid(place="--share", problem=f"{text!r} is no list of shares", remedy=remedy) from None


def _tell(result: Drill) -> None:
    rows = [
        (r.change, f"{r.share:.0%}", f"{r.seen} of {r.replicates}", r.delay_median, r.delay_q90, r.first_monitor,
         ", ".join(f"{cause} ({n})" for cause, n in r.causes.items()), f"{r.named_rightly} of {r.seen}", r.false_alarms)
        for r in result.rows
    ]  # fmt: skip
    head = ("change", "share", "seen", "events to alarm", "90% within", "first monitor", "diagnosed as", "rightly", "false alarms")
    show.table(head, rows, title=f"Drill of {result.task}")
    for sentence in sentences(result):
        show.line(sentence)


def sentences(result: Drill) -> list[str]:
    """The result in words."""
    said = [
        f"Streams of {result.quiet_events} quiet and {result.events} changed events were drawn from the newest {result.capture_count} "
        f"captures of the champion, {result.labelled_count} of them labelled."
    ]
    for change, share in result.smallest.items():
        found = f"a share of {share:.0%} is the smallest tried that" if share is not None else "no share that was tried"
        said.append(f"{change}: {found} would be seen within {result.events} events in {POWER:.0%} of the streams.")
    alarmed, streams = max((r.false_alarms for r in result.rows), default=0), max((r.replicates for r in result.rows), default=1)
    nominal = result.quiet_events / result.run_length_events
    said.append(
        f"False alarms in the quiet part: {alarmed} of {streams} streams (at most {nominal:.2%} are promised on unchanged traffic)."
    )
    if alarmed > max(1, 3 * nominal * streams):
        said.append("Recent traffic differs from what the champion was made on already; see `holdfast alerts`.")
    return said
