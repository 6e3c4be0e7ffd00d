"""A challenger on trial beside the champion."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli import show
from holdfast.cli.context import AsJson, Task, WrongUsage, client_of
from holdfast.cli.loop import Reason, digest_of_version


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(trial)


def trial(
    context: typer.Context,
    task: Task,
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="Number or digest; the newest judged when absent.")] = None,
    *,
    canary: Annotated[float, typer.Option("--canary", min=0.0, max=1.0, help="Share of the traffic that it answers.")] = 0.0,
    shadow: Annotated[bool, typer.Option("--shadow", help="Give it copies; nobody gets its answers.")] = False,
    end: Annotated[bool, typer.Option("--end", help="End the trial: the champion answers alone.")] = False,
    reason: Reason = "by hand",
    as_json: AsJson = False,
) -> None:
    """Put a version on trial: in shadow, or answering a share (that needs a passing verdict; exit code 4 otherwise)."""
    if end == bool(canary or shadow):
        if end:
            problem = "A trial is ended with --end alone, or begun with --shadow, --canary SHARE or both"
        else:
            problem = "A trial wants to know what the version gets: --shadow (copies; nobody gets its answers), --canary SHARE, or both"
        name = f"holdfast trial {task}"
        raise WrongUsage(problem=problem, remedy=f"write `{name} {version or 'VERSION'} --shadow` to begin it, `{name} --end` to end it")
    with client_of(context) as client:
        if end:
            made = client.end_trial(task, reason=reason)
        else:
            digest = digest_of_version(client, task, version)
            made = client.begin_trial(task, adapter_digest=digest, share_canary=canary, shadow=shadow, reason=reason)
    if as_json:
        show.as_json(made)
    elif made["challenger"] is None:
        show.line(f"{show.short(made['champion'])} answers {task} alone, at generation {made['generation']}")
    else:
        ways = [f"answers {made['share_canary']:.0%}"] * bool(made["share_canary"]) + ["gets copies"] * made["shadow"]
        show.line(f"{show.short(made['challenger'])} {' and '.join(ways)} of {task}, at generation {made['generation']}")
