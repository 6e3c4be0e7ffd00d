"""Tasks: create from a contract, list, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.bootstrap import home as bootstrap_home
from holdfast.cli import show
from holdfast.cli.context import AsJson, Task, client_of
from holdfast.domain.records import to_plain


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Tasks: create from a contract, list, show.", rich_markup_mode=None)
    group.command("create")(create)
    group.command("list")(list_all)
    group.command("show")(show_one)
    app.add_typer(group, name="task")


def create(
    context: typer.Context,
    contract: Annotated[Path, typer.Argument(metavar="CONTRACT", help="YAML file of the contract.", show_default=False)],
    replace: Annotated[bool, typer.Option("--replace", help="Change the contract of a task that exists.")] = False,
) -> None:
    """Create a task from its contract. Every mistake in the file is told with its line and column."""
    parsed = bootstrap_home.read_contract(contract)
    plain = to_plain(parsed)
    assert isinstance(plain, dict)
    with client_of(context) as client:
        client.create_task(plain, replace=replace)
    show.line(f"task {parsed.task} is there, with {len(parsed.labels)} labels")
    show.say(f"next: holdfast data add {parsed.task} FILE")


def list_all(context: typer.Context, as_json: AsJson = False) -> None:
    """List all tasks."""
    with client_of(context) as client:
        found = client.tasks()
        views = [client.task(contract["task"]) for contract in found]
    if as_json:
        show.as_json(views)
        return
    rows = [_row(view) for view in views]
    show.table(("task", "state", "champion", "quality", "floor", "captures", "labels", "open alerts"), rows)


def show_one(context: typer.Context, task: Task, as_json: AsJson = False) -> None:
    """Show one task: who is champion, how good it is, what is watched, what the loop does."""
    with client_of(context) as client:
        view, versions = client.task(task), client.versions(task)
    if as_json:
        show.as_json(view | {"versions": versions})
        return
    standing, assignment = view["standing"], view["assignment"]
    show.line(f"{task}: {standing['state']}. {standing['why']}")
    champion = f"v{view['champion']['number']}" if view["champion"] else "none"
    generation = f", generation {assignment['generation']}" if assignment else ""
    show.line(f"champion: {champion}{generation}; quality {_score(view)}; floor {view['contract']['floor']}; loop: {standing['step']}")
    names = {assignment["champion"]: "champion", assignment["previous"]: "previous"} if assignment else {}
    rows = [
        (v["number"], show.short(v["digest"]), v["rung"], names.get(v["digest"]), v["train_seconds"], show.ago(v["created_at"]))
        for v in versions
    ]
    show.table(("version", "adapter", "rung", "role", "train seconds", "made"), rows)
    readings = [(r["monitor"], r["status"], r["log_evidence"], r["log_threshold"], r["event_count"], r["note"]) for r in view["monitors"]]
    show.table(("monitor", "status", "log evidence", "alarm at", "events", "what it could have seen"), readings)


def _row(view: dict[str, Any]) -> tuple[show.Cell, ...]:
    contract, champion = view["contract"], view["champion"]
    return (
        contract["task"], view["standing"]["state"], f"v{champion['number']}" if champion else None, _score(view), contract["floor"],
        view["capture_count"], view["label_count"], len(view["alerts"]),
    )  # fmt: skip


def _score(view: dict[str, Any]) -> str:
    score = view["quality"]["overall"]
    if score is None:
        return "unknown"
    return f"{score['value']:.3f} [{score['lower']:.3f}, {score['upper']:.3f}] of {score['row_count']}"
