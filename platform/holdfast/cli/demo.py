"""`holdfast demo`: a whole loop on this machine, with synthetic traffic that drifts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from holdfast.bootstrap import home as bootstrap_home
from holdfast.cli import show
from holdfast.cli.context import settings_of
from holdfast.cli.demo_patience import LOOK_S, HomeStopped
from holdfast.cli.demo_report import StoryReport
from holdfast.cli.demo_story import Story, StoryPlan
from holdfast.cli.demo_view import StoryView, tell
from holdfast.cli.run_files import is_locked, is_up
from holdfast.client import Client
from holdfast.domain.records import to_plain
from holdfast.errors import PartUnavailable, StorageRefused
from holdfast.settings import Settings

HELP = """Start everything, tell the story of one loop, and stay up until Ctrl-C.

A task is created from its contract, its first version is trained, judged, promoted and served; traffic runs over HTTP. Then the
world changes, and without anybody pressing anything the platform notices, says why, retrains, judges, promotes and swaps. The
tickets are SYNTHETIC, written for this demonstration: they show that the loop works, not how well it does on your data; for that
there is `holdfast backtest`. Exit code 0 only if the loop truly closed.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", help=HELP)(_command)


def _command(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="End everything after the story.")] = False,
    json_out: Annotated[Path | None, typer.Option("--json", metavar="OUT", help="Write the report as JSON.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic tickets.")] = StoryPlan().seed,
) -> None:
    settings = settings_of(context)
    if json_out is not None and not json_out.absolute().parent.is_dir():
        raise StorageRefused(place=json_out, reason="its folder does not exist")
    mine = not is_locked(settings.folder)
    try:
        if mine:
            _holdfast(settings, "up")
        report = _tell(settings, StoryPlan(seed=seed))
        if json_out is not None:
            json_out.write_text(json.dumps(to_plain(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        _addresses(settings)
        if not once:
            _stay(settings.folder)
    finally:
        if mine and is_locked(settings.folder):
            _holdfast(settings, "down")
    if not report.closed:
        raise typer.Exit(1)


def _tell(settings: Settings, plan: StoryPlan) -> StoryReport:
    console = Console()
    client = Client(settings.local(settings.ports.api), settings.local(settings.ports.gateway), bootstrap_home.admin_key(settings))
    with client:
        report = Story(client, StoryView(console), plan, is_up=lambda: is_up(settings.folder)).run()
    tell(report, console)
    return report


def _holdfast(settings: Settings, command: str) -> None:
    """The command as a person would type it, so that the demonstration starts and ends what anybody starts and ends."""
    done = subprocess.run([sys.executable, "-m", "holdfast", "--home", str(settings.folder), command], stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise PartUnavailable(part=f"`holdfast {command}`", reason=f"it ended with exit code {done.returncode}; the lines above say why")


def _addresses(settings: Settings) -> None:
    ports = settings.ports
    show.line("")
    for name, port in (("console", ports.api), ("predictions", ports.gateway), ("MLflow", ports.mlflow), ("Evidently", ports.evidently)):
        show.line(f"{name}\t{settings.local(port)}")
    show.line(f"API key\t{settings.folder / 'keys' / 'admin.key'}")


def _stay(home: Path) -> None:
    """Until Ctrl-C. Raises HomeStopped."""
    show.say("everything stays up; Ctrl-C ends it")
    try:
        while is_up(home):
            time.sleep(LOOK_S)
    except KeyboardInterrupt:
        show.say("ending")
    else:
        raise HomeStopped()
