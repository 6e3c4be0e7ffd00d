"""API keys: make one, list them, revoke one. Straight from the database, so that a lost key can be replaced."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.bootstrap import home as bootstrap_home
from holdfast.cli import show
from holdfast.cli.context import AsJson, made_home

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the key, such as the program that uses it.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="API keys.", rich_markup_mode=None)
    group.command("create")(create)
    group.command("list")(list_names)
    group.command("revoke")(revoke)
    app.add_typer(group, name="keys")


def create(context: typer.Context, name: Name) -> None:
    """Make a key and print it, this once; only its hash is stored."""
    show.line(bootstrap_home.add_key(made_home(context), name))


def list_names(context: typer.Context, as_json: AsJson = False) -> None:
    """List the names of the valid keys."""
    names = bootstrap_home.key_names(made_home(context))
    if as_json:
        show.as_json([{"name": name} for name in names])
    else:
        show.table(("name",), [(name,) for name in names])


def revoke(context: typer.Context, name: Name) -> None:
    """Make a key useless; it takes effect within a second."""
    bootstrap_home.revoke_key(made_home(context), name)
    show.line(f"key {name} is revoked")
