"""Data: add examples to a task, or look at them first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.bootstrap import home as bootstrap_home
from holdfast.cli import show
from holdfast.cli.context import AsJson, Task, client_of

File = Annotated[Path, typer.Argument(metavar="FILE", help="CSV, TSV, JSONL or Parquet; the text forms also with .gz.", show_default=False)]
Text = Annotated[str | None, typer.Option("--text", metavar="COL", help="Column of the texts; guessed from its name when absent.")]
Label = Annotated[str | None, typer.Option("--label", metavar="COL", help="Column of the labels; guessed from its name when absent.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Data: add examples to a task, or look at them first.", rich_markup_mode=None)
    group.command("add")(add)
    group.command("audit")(audit)
    app.add_typer(group, name="data")


def add(context: typer.Context, task: Task, file: File, *, text: Text = None, label: Label = None, as_json: AsJson = False) -> None:
    """Freeze the examples of a file as the newest data set of a task. One mistake refuses the whole file."""
    answer = _send(context, task, file, text, label, dry_run=False)
    if as_json:
        show.as_json(answer)
        return
    snapshot = answer["snapshot"]
    rows, labels = snapshot["row_count"], len(snapshot["labels"])
    held_out = snapshot["holdout_past_count"] + snapshot["holdout_recent_count"]
    show.line(
        f"snapshot {show.short(snapshot['digest'])}: {rows} rows, {labels} labels "
        f"({snapshot['train_count']} to train, {snapshot['validation_count']} to validate, {held_out} held out)"
    )
    for warning in answer["audit"]["warnings"]:
        show.say(f"warning: {warning}")
    show.say(f"next: holdfast train {task}")


def audit(context: typer.Context, task: Task, file: File, *, text: Text = None, label: Label = None, as_json: AsJson = False) -> None:
    """Look at every row of a file against the contract; nothing is stored. Exit code 1 when it could not be added."""
    found = _send(context, task, file, text, label, dry_run=True)["audit"]
    if as_json:
        show.as_json(found)
    else:
        facts = [
            (name.replace("_", " "), found[name])
            for name in ("row_count", "text_count", "duplicate_count", "conflict_count", "error_count")
        ]
        show.table(("what", "count"), facts)
        show.table(("label", "rows"), list(found["label_counts"].items()))
        for problem in found["errors"]:
            show.say(f"error: {problem['place']}: {problem['message']}")
        for warning in found["warnings"]:
            show.say(f"warning: {warning}")
    if found["error_count"]:
        raise typer.Exit(1)


def _send(context: typer.Context, task: str, file: Path, text: str | None, label: str | None, *, dry_run: bool) -> dict[str, Any]:
    with client_of(context, timeout_s=300.0) as client:
        kind = client.task(task)["contract"]["kind"]
        examples = bootstrap_home.read_examples(file, text=text, label=label, kind=kind, say=show.say)
        rows = [{"text": e.text, "label": e.label, "source": e.source, "place": e.place} for e in examples]
        return client.add_dataset(task, rows, dry_run=dry_run)
