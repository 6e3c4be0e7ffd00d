"""The operator's hand: one command per deed.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something needed is not healthy, 4 a gate refused.
"""

from __future__ import annotations

import importlib
import importlib.util
import signal
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from holdfast import __version__
from holdfast.cli import captures, data, fleet, home, keys, ledger, loop, predictions, reviews, tasks, trials
from holdfast.cli.context import settings_for
from holdfast.cli.show import say
from holdfast.errors import GateRefused, HoldfastError, RequestInvalid, TrainingFailed, Unhealthy

OK, FAILED, USAGE, UNHEALTHY, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130

app = typer.Typer(
    name="holdfast", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Keeps fine-tuned small models true in production: serve, watch, retrain, judge, promote.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 unhealthy, 4 a gate refused.",
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"holdfast {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option("--home", help="Folder of all state. Default: HOLDFAST_HOME, or .holdfast here.", show_default=False)
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")] = False,
) -> None:
    """Keeps fine-tuned small models true in production: serve, watch, retrain, judge, promote."""
    context.obj = settings_for(home)


for _noun in (home, fleet, tasks, data, loop, trials, reviews, predictions, captures, ledger, keys):
    _noun.register(app)
for _name in ("demo", "backtest", "drill"):
    if importlib.util.find_spec(f"holdfast.cli.{_name}") is not None:
        importlib.import_module(f"holdfast.cli.{_name}").register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run one command and end the process with its exit code. SIGTERM, and the end of the terminal, stop it as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup`
            signal.signal(number, signal.default_int_handler)
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """The exit code of one command. Every error is one line that says what is wrong and one that says how to mend it, on stderr."""
    command = typer.main.get_command(app)
    try:
        result = command.main(args=arguments, prog_name="holdfast", standalone_mode=False)
        if result == INTERRUPTED:  # what Typer makes of Ctrl-C, without a word
            say("stopped")
        return result if isinstance(result, int) else OK
    except HoldfastError as error:
        said = f"error: {error.message[:1].upper()}{error.message[1:]}"
        say(f"{said}\nmend:  {error.mend[:1].lower()}{error.mend[1:]}" if error.mend else said)
        return exit_code(error)
    except typer.Abort:
        say("stopped")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stdout = None  # the reader has gone; nothing is left to flush
        return OK
    except Exception as error:
        return _foreign(error, arguments)


def exit_code(error: HoldfastError) -> int:
    """The documented exit code of an error."""
    if isinstance(error, GateRefused):
        return REFUSED
    if isinstance(error, RequestInvalid):
        return USAGE
    if isinstance(error, Unhealthy) and not isinstance(error, TrainingFailed):
        return UNHEALTHY
    return FAILED


def _foreign(error: Exception, arguments: list[str] | None) -> int:
    """Typer's complaint about the usage, or something that nobody foresaw: then the trace goes to a file."""
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        context = getattr(error, "ctx", None)
        say(f"error: {error.format_message()}\nmend:  see `{context.command_path if context else 'holdfast'} --help`")
        return int(error.exit_code)
    settings = settings_for(_home_in(arguments if arguments is not None else sys.argv[1:]))
    if settings.debug:
        traceback.print_exc()
    say(f"error: {type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no message'}")
    say(f"mend:  this is a fault of Holdfast; the trace is in {_log(settings.folder)} (HOLDFAST_DEBUG=1 shows it)")
    return FAILED


def _home_in(arguments: list[str]) -> Path | None:
    for before, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if before == "--home":
            return Path(after)
        if before.startswith("--home="):
            return Path(before.removeprefix("--home="))
    return None


def _log(folder: Path) -> str:
    path = folder / "logs" / "cli.log"
    try:
        with path.open("a") as file:
            file.write(f"--- {datetime.now(UTC).isoformat()} {' '.join(sys.argv[1:])}\n{traceback.format_exc()}\n")
    except OSError:
        return "no file, since the home cannot be written"
    return str(path)
