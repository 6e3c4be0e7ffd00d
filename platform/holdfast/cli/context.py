"""What every command needs: the settings of the home it speaks of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from holdfast.bootstrap import home as bootstrap_home
from holdfast.client import Client
from holdfast.errors import NotFound, RequestInvalid
from holdfast.settings import Profile, Settings, read_settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON with stable keys instead of a table.")]
Task = Annotated[str, typer.Argument(metavar="TASK", help="Name of the task.", show_default=False)]


def settings_for(home: Path | None, profile: Profile | None = None) -> Settings:
    """The settings, with home and profile given on the command line where they are.

    Raises:
        RequestInvalid: when an environment variable holds something that cannot be used.
    """
    try:
        return read_settings(home, profile)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # two settings that do not fit together
            remedy = "see HOLDFAST_PROFILE and HOLDFAST_SERVING__..."
            raise RequestInvalid(place="environment", problem=first["msg"].removeprefix("Value error, "), remedy=remedy) from None
        variable = "HOLDFAST_" + "__".join(str(part).upper() for part in first["loc"])
        problem = f"{first['msg'][:1].lower()}{first['msg'][1:]} (it is {first['input']!r:.60})"
        raise RequestInvalid(place=variable, problem=problem, remedy=f"correct or unset {variable}") from None


def settings_of(context: typer.Context) -> Settings:
    """The settings read by the root command."""
    found = context.find_root().obj
    assert isinstance(found, Settings)
    return found


def made_home(context: typer.Context) -> Settings:
    """The settings of a home that was made.

    Raises:
        NotFound: when there is none.
    """
    settings = settings_of(context)
    if not (settings.folder / "keys").is_dir():
        raise HomeMissing(kind="home", name=str(settings.folder))
    return settings


def client_of(context: typer.Context, *, timeout_s: float = 30.0) -> Client:
    """A client of the running home, with the key of its owner."""
    settings = made_home(context)
    ports = settings.ports
    return Client(settings.local(ports.api), settings.local(ports.gateway), bootstrap_home.admin_key(settings), timeout_s=timeout_s)


class WrongUsage(RequestInvalid):
    """{problem}.

    Mend: {remedy}
    """


class HomeMissing(NotFound):
    """There is no home in {name}.

    Mend: make one with `holdfast init`, or name another with `--home`.
    """
