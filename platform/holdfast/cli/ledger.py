"""The ledger: verify the chain, straight from the database, whether the home runs or not."""

from __future__ import annotations

import typer

from holdfast.bootstrap import home as bootstrap_home
from holdfast.cli import show
from holdfast.cli.context import AsJson, made_home


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="The ledger of every decision.", rich_markup_mode=None)
    group.command("verify")(verify)
    group.command("list")(list_entries)
    app.add_typer(group, name="ledger")


def verify(context: typer.Context, as_json: AsJson = False) -> None:
    """Check that no entry was edited, inserted, moved, or removed before the newest. Exit code 1 when one was."""
    count, head = bootstrap_home.verify_ledger(made_home(context))
    if as_json:
        show.as_json({"entry_count": count, "head": head, "verified": True})
    else:
        show.line(f"the ledger verifies: {count} entries, head {head}")


def list_entries(context: typer.Context, as_json: AsJson = False) -> None:
    """List every decision in order."""
    entries = bootstrap_home.ledger_entries(made_home(context))
    if as_json:
        show.as_json(entries)
    else:
        rows = [(e.seq, e.at.isoformat(timespec="seconds"), e.kind, e.task, e.actor, show.short(e.hash)) for e in entries]
        show.table(("seq", "at", "decision", "task", "actor", "hash"), rows)
