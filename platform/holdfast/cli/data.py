"""Data: add examples to a task, look at them first, or see what a training was given."""

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
    group.command("show")(show_newest)
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


def show_newest(context: typer.Context, task: Task, *, as_json: AsJson = False) -> None:
    """What the newest data set of a task holds, what was left out of it and why, and which labels look wrong."""
    with client_of(context) as client:
        found = client.datasets(task)
    if as_json:
        show.as_json(found[0] if found else None)
        return
    if not found:
        show.line(f"{task} has no data yet")
        show.say(f"next: holdfast data add {task} FILE")
        return
    newest = found[0]
    show.line(f"snapshot {show.short(newest['digest'])}: {newest['row_count']} rows, {newest['train_count']} to train")
    show.table(("left out or flagged", "rows"), _left_out(newest))
    taught = newest["taught"]
    if taught is None:
        return
    show.line(f"taught: {taught['taught_count']} rows, {taught['replay_share']:.0%} of the past ones")
    if taught["replay_trials"]:
        trials = [
            (f"{t['share']:.0%}", t["row_count"], f"{t['past_score']:.3f}", f"{t['recent_score']:.3f}") for t in taught["replay_trials"]
        ]
        show.table(("share of the past", "rows", "past score", "recent score"), trials)
    if taught["suspected"]:
        rows = [(s["text"][:60], s["label"], s["suggested"], f"{s['margin']:.2f}", s["source"]) for s in taught["suspected"]]
        show.table(("suspected label error", "label", "rather", "margin", "source"), rows)


def _left_out(snapshot: dict[str, Any]) -> list[tuple[str, int]]:
    left = snapshot["left_out"]
    counts = [
        ("near-duplicates beyond the contract's number", left["near_duplicate_count"]),
        ("nearly the same as a held-out row", left["sealed_alike_count"]),
        ("past rows that recent labels contradict", snapshot["contradicted_count"]),
    ]
    counts += [(f"an older label that a newer one contradicts, by {name}", n) for name, n in left["conflicts_by_source"].items()]
    counts += [(f"beyond the share of its source, by {name}", n) for name, n in left["capped_by_source"].items()]
    return [*counts, ("suspected label errors", len((snapshot["taught"] or {}).get("suspected", ())))]


def _send(context: typer.Context, task: str, file: Path, text: str | None, label: str | None, *, dry_run: bool) -> dict[str, Any]:
    with client_of(context, timeout_s=300.0) as client:
        kind = client.task(task)["contract"]["kind"]
        examples = bootstrap_home.read_examples(file, text=text, label=label, kind=kind, say=show.say)
        rows = [{"text": e.text, "label": e.label, "source": e.source, "place": e.place} for e in examples]
        return client.add_dataset(task, rows, dry_run=dry_run)
