"""Captures: whether any is missing. Straight from the database, whether the home runs or not."""

from __future__ import annotations

import typer

from holdfast.bootstrap import home as bootstrap_home
from holdfast.cli import show
from holdfast.cli.context import AsJson, made_home
from holdfast.domain.producers import Producer, Ranges

SHOWN = 5
"""Ranges of missing numbers in a row of the table."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="The log of captures.", rich_markup_mode=None)
    group.callback()(lambda: None)  # so that a single command keeps its name
    group.command("gaps")(gaps)
    app.add_typer(group, name="captures")


def gaps(context: typer.Context, as_json: AsJson = False) -> None:
    """Count, per gateway process, the captures it accepted that are not in the log. Exit code 1 when any is missing.

    What a gateway that runs has accepted just now is on its way, and missing until it arrives.
    """
    producers = bootstrap_home.producers(made_home(context))
    missing_count = sum(one.missing_count for one in producers)
    if as_json:
        show.as_json({"missing_count": missing_count, "producers": [_plain(one) for one in producers]})
    else:
        rows = [
            (p.producer, p.highest, p.seen_count, p.missing_count, _listed(p.missing), f"{p.last_at:%Y-%m-%d %H:%M:%S}") for p in producers
        ]
        show.table(("gateway process", "accepted", "in the log", "missing", "numbers", "newest"), rows)
    if missing_count:
        raise typer.Exit(1)


def _plain(one: Producer) -> dict[str, object]:
    return {
        "producer": one.producer, "highest": one.highest, "seen_count": one.seen_count, "missing_count": one.missing_count,
        "missing": [list(stretch) for stretch in one.missing], "last_at": one.last_at,
    }  # fmt: skip


def _listed(missing: Ranges) -> str:
    words = [str(first) if first == last else f"{first} to {last}" for first, last in missing[:SHOWN]]
    return ", ".join(words) + (", …" if len(missing) > SHOWN else "")
