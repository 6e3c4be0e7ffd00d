"""The home: init, up, down, status, doctor."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer

from holdfast.bootstrap import home as bootstrap_home
from holdfast.cli import processes, show
from holdfast.cli.context import AsJson, made_home, settings_of
from holdfast.cli.doctor import examine
from holdfast.cli.overview import overview
from holdfast.cli.probe import log_tail, port_is_free
from holdfast.cli.progress import follow_start
from holdfast.cli.run_files import holder, is_locked, lock, read_status, take_failure, write_failure
from holdfast.errors import HoldfastError, HomeInUse, PartUnavailable, PortInUse
from holdfast.settings import Settings

UNHEALTHY = 3
STOP_S = 90.0


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (init, up, down, status, doctor):
        app.command()(command)


def init(context: typer.Context) -> None:
    """Make the home: its folders, the database and the first API key. Writes nothing outside of it."""
    settings = settings_of(context)
    fresh = bootstrap_home.make_home(settings)
    show.line(f"{'made' if fresh else 'checked'} {settings.folder}")
    show.say(f"the API key lies in {settings.folder / 'keys' / 'admin.key'}; next: holdfast up")


def up(
    context: typer.Context,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay here and end everything on Ctrl-C.")] = False,
) -> None:
    """Start everything and keep it running. Processes that die are started again."""
    settings = settings_of(context)
    if is_locked(settings.folder):
        raise HomeInUse(home=settings.folder, pid=holder(settings.folder) or "unknown")
    bootstrap_home.make_home(settings)
    if foreground:
        _supervise(settings)
    else:
        _start_detached(settings)
        _print_addresses(settings)


def down(
    context: typer.Context,
    force: Annotated[bool, typer.Option("--force", help="Kill at once, by what the folder alone tells.")] = False,
) -> None:
    """End every process of this home, and only of this home."""
    settings = made_home(context)
    home = settings.folder
    before = processes.belongings(home)
    if force:
        processes.kill(before)
        pid = holder(home)
        if is_locked(home) and pid is not None and psutil.pid_exists(pid):
            processes.kill((psutil.Process(pid),))
    elif is_locked(home):
        _ask_to_end(home)
    killed = processes.end(processes.belongings(home), grace_s=5.0)
    left = processes.belongings(home)
    if left:
        raise PartUnavailable(part="the home", reason=f"{len(left)} processes do not end ({', '.join(str(p.pid) for p in left[:5])})")
    forced = f", {killed} of them by force" if killed else ""
    show.line(f"ended {len(before)} processes{forced}" if before else "nothing was running")


def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the processes, the replicas with what they hold and proved, and the tasks. Exit code 3 when something is not healthy."""
    settings = made_home(context)
    found = overview(settings)
    if as_json:
        show.as_json(found)
    else:
        show.line(f"home {found.home}: {found.state}")
        rows = [(c.name, c.state, c.pid, c.restarts, show.ago(c.since), c.url) for c in found.children]
        show.table(("process", "state", "pid", "restarts", "since", "address"), rows)
        held = [
            (r.replica, f"{r.held_count} of {r.wanted_count}", show.ago(r.oldest_proof_at), len(r.refused), show.ago(r.reported_at))
            for r in found.replicas
        ]
        show.table(("replica", "versions held", "proved", "refused", "heard of"), held)
        tasks = [(t.task, show.short(t.champion), t.generation, t.open_alerts, t.retraining) for t in found.tasks]
        show.table(("task", "champion", "generation", "open alerts", "retraining"), tasks)
        show.line(f"labels: {found.labels_unmatched} met no capture, {found.labels_refused} were refused; kept in {settings.label_spool}")
        for trouble in found.troubles:
            show.say(f"unhealthy: {trouble}")
    if found.troubles:
        raise typer.Exit(UNHEALTHY)


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check everything that a healthy home rests on. Exit code 3 when a check is bad."""
    findings = examine(settings_of(context))
    if as_json:
        show.as_json(findings)
    else:
        show.table(("check", "result", "what was found", "mend"), [(f.check, f.result, f.detail, f.mend) for f in findings])
    if any(f.result == "bad" for f in findings):
        raise typer.Exit(UNHEALTHY)


def _supervise(settings: Settings) -> None:
    """Be the supervisor until a signal comes."""
    from holdfast.cli.supervisor import Supervisor

    home = settings.folder
    try:
        with lock(home):
            processes.end(processes.belongings(home), grace_s=5.0)  # left by a supervisor that was killed
            _check_ports(settings)
            shutil.rmtree(settings.ray_folder, ignore_errors=True)  # sessions of earlier heads; the newest was kept to be read
            supervisor = Supervisor(home, bootstrap_home.process_commands(settings), alone=True)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: supervisor.stop())
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            supervisor.run()
    except HoldfastError as error:
        write_failure(home / "run", error)
        raise


def _start_detached(settings: Settings) -> None:
    home = settings.folder
    for name in ("status.json", "failure.json"):
        (home / "run" / name).unlink(missing_ok=True)
    log = home / "logs" / "supervisor.log"
    argv = [sys.executable, "-m", "holdfast", "--home", str(home), "up", "--foreground"]
    env = {**os.environ, processes.MARKER: str(home), processes.PROCESS: "supervisor"}  # noqa: TID251  (for the child)
    with log.open("ab") as output:
        supervisor = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=env, cwd=home
        )
    try:
        follow_start(home, lambda: supervisor.poll() is None)
    except KeyboardInterrupt:
        supervisor.terminate()
        supervisor.wait(STOP_S)
        raise
    if supervisor.poll() is not None:
        raise take_failure(home / "run") or PartUnavailable(part="the supervisor", reason=f"it ended; the end of {log}: {log_tail(log)}")


def _check_ports(settings: Settings) -> None:
    for name, port in settings.ports_used().items():
        if not port_is_free(settings.host, port):
            raise PortInUse(port=port, part=name.replace("_", " "), setting=f"HOLDFAST_PORTS__{name.split()[0].upper()}")


def _ask_to_end(home: Path) -> None:
    pid = holder(home)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while is_locked(home):
        if time.monotonic() > deadline:
            raise PartUnavailable(part="the supervisor", reason=f"it did not end within {STOP_S:.0f} s (use `holdfast down --force`)")
        time.sleep(0.1)


def _print_addresses(settings: Settings) -> None:
    ports = settings.ports
    places = {"console": ports.api, "predictions": ports.gateway, "MLflow": ports.mlflow, "Evidently": ports.evidently}
    known = read_status(settings.folder / "run")
    seconds = (max(c.since for c in known.children) - known.started_at).total_seconds() if known else 0.0
    show.say(f"everything runs, after {seconds:.0f} s; the API key is in {settings.folder / 'keys' / 'admin.key'}")
    for name, port in places.items():
        show.line(f"{name}\t{settings.local(port)}")
