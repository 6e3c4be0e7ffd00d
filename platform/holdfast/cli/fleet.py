"""The fleet: the file that puts the replicas on a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from holdfast.bootstrap.deployment import serve_yaml
from holdfast.cli import show
from holdfast.cli.context import settings_for, settings_of
from holdfast.errors import StorageRefused
from holdfast.settings import Profile


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("serve-config")(serve_config)


def serve_config(
    context: typer.Context,
    profile: Annotated[Profile, typer.Option("--profile", help="production: two replicas or more, scaled by load.")] = "production",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write; printed when absent.", show_default=False)] = None,
) -> None:
    """Write the YAML with which `serve deploy` puts the replicas on a Ray cluster. It holds no secret."""
    text = serve_yaml(settings_for(settings_of(context).home, profile))
    if output is None:
        show.line(text.rstrip())
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageRefused(place=output, reason=error.strerror) from None
    show.say(f"next: serve deploy {output}")
