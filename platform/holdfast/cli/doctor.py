"""The checks of `holdfast doctor`: each looks at one thing a healthy home rests on, and says how to mend it."""

from __future__ import annotations

import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from holdfast.bootstrap import home as bootstrap_home
from holdfast.cli.probe import answers, port_is_free
from holdfast.cli.replicas import replica_lines, replica_troubles
from holdfast.cli.run_files import is_locked
from holdfast.cli.show import ago
from holdfast.errors import HoldfastError
from holdfast.settings import Settings

Result = Literal["ok", "warn", "bad"]
LEAST_FREE_GIB = 2.0
FLOORS = {"ray": "2.60", "mlflow": "3.17", "transformers": "5.3", "peft": "0.20", "torch": "2.6"}
"""Below these, known holes are open (remote code through a model's configuration, an open Jobs API)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found."""

    check: str
    result: Result
    detail: str
    mend: str = ""


def examine(settings: Settings) -> tuple[Finding, ...]:
    """Every check, in order; a check that itself fails is a bad finding."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _python, _packages, _home, _disk, _secrets, _database, _base_models, _ports, _mlflow, _replicas, _profile, _clock,
    )  # fmt: skip
    return tuple(finding for check in checks for finding in _safely(check, settings))


def _safely(check: Callable[[Settings], Iterator[Finding]], settings: Settings) -> tuple[Finding, ...]:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return tuple(check(settings))
    except HoldfastError as error:
        return (Finding(check=name, result="bad", detail=error.message, mend=error.mend),)
    except Exception as error:  # a check must not end the examination
        return (Finding(check=name, result="bad", detail=f"the check failed: {type(error).__name__}: {error}"),)


def _python(_: Settings) -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield Finding(
        check="python", result="ok" if good else "bad", detail=sys.version.split()[0], mend="" if good else "use Python 3.11 or newer"
    )


def _packages(_: Settings) -> Iterator[Finding]:
    pandas = metadata.version("pandas")
    good = _numbers(pandas) < (3, 1)
    mend = "" if good else "Evidently does not import with pandas 3.1: run `make setup`"
    yield Finding(check="pandas", result="ok" if good else "bad", detail=pandas, mend=mend)
    for name, floor in FLOORS.items():
        found = metadata.version(name)
        good = _numbers(found) >= _numbers(floor)
        yield Finding(check=name, result="ok" if good else "bad", detail=found, mend="" if good else f"below {floor}: run `make setup`")


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.folder
    if not home.is_dir():
        yield Finding(check="home", result="bad", detail=f"{home} does not exist", mend="run `holdfast init`")
        return
    probe = home / "run" / ".doctor"
    try:
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        yield Finding(
            check="home", result="bad", detail=f"{home} cannot be written ({error.strerror})", mend="correct its permissions or free space"
        )
        return
    private = stat.S_IMODE(home.stat().st_mode) & 0o077 == 0
    mend = "" if private else f"others can read it: chmod 700 {home}"
    yield Finding(check="home", result="ok" if private else "warn", detail=str(home), mend=mend)


def _disk(settings: Settings) -> Iterator[Finding]:
    place = settings.folder if settings.folder.is_dir() else settings.folder.parent
    free = shutil.disk_usage(place).free / 2**30
    good = free >= LEAST_FREE_GIB
    yield Finding(check="disk", result="ok" if good else "bad", detail=f"{free:.1f} GiB free", mend="" if good else "free some space")


def _secrets(settings: Settings) -> Iterator[Finding]:
    for name, path in (("API key", settings.folder / "keys" / "admin.key"), ("Ray token", settings.folder / "run" / "ray.token")):
        if not path.exists():
            mend = "run `holdfast init`" if name == "API key" else "`holdfast up` makes it"
            yield Finding(check=name, result="bad" if name == "API key" else "warn", detail="is not there", mend=mend)
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        good = mode & 0o077 == 0
        yield Finding(check=name, result="ok" if good else "bad", detail=f"{path} ({mode:04o})", mend="" if good else f"chmod 600 {path}")


def _database(settings: Settings) -> Iterator[Finding]:
    current = bootstrap_home.schema_is_current(settings)
    mend = "" if current else "run `holdfast init`; it brings the schema up to date"
    yield Finding(
        check="database", result="ok" if current else "bad", detail="schema is current" if current else "schema is old", mend=mend
    )


def _base_models(settings: Settings) -> Iterator[Finding]:
    for name in settings.bases:
        folder = bootstrap_home.check_base(settings, name)
        yield Finding(check=f"base {name}", result="ok", detail=f"{folder} has the pinned digest")


def _ports(settings: Settings) -> Iterator[Finding]:
    if is_locked(settings.folder):
        return
    for name, port in settings.ports_used().items():
        free = port_is_free(settings.host, port)
        mend = "" if free else f"stop the program there, or set HOLDFAST_PORTS__{name.split()[0].upper()}"
        yield Finding(check=f"port {name}", result="ok" if free else "bad", detail=f"{port} is {'free' if free else 'taken'}", mend=mend)


def _mlflow(settings: Settings) -> Iterator[Finding]:
    if not is_locked(settings.folder):
        return
    url = settings.local(settings.ports.mlflow)
    good = answers(f"{url}/health", timeout_s=5.0)
    mend = "" if good else f"see {settings.folder / 'logs' / 'mlflow.log'}"
    yield Finding(check="MLflow", result="ok" if good else "bad", detail=f"{url} {'answers' if good else 'does not answer'}", mend=mend)


def _replicas(settings: Settings) -> Iterator[Finding]:
    if not is_locked(settings.folder):
        return
    with bootstrap_home.open_database(settings) as unit:
        lines = replica_lines(unit, settings)
    troubles = replica_troubles(lines, settings)
    if troubles:
        mend = "see `holdfast alerts` and the log of the gateway"
        yield Finding(check="replicas", result="bad", detail=troubles[0], mend=mend)
        return
    proof = ago(min((line.oldest_proof_at for line in lines if line.oldest_proof_at), default=None))
    detail = f"{len(lines)}, each with all {max((line.wanted_count for line in lines), default=0)} versions"
    yield Finding(check="replicas", result="ok", detail=detail + (f", oldest proof {proof}" if proof else ""))


def _profile(settings: Settings) -> Iterator[Finding]:
    """What the profile `production` asks for beyond its numbers."""
    if settings.profile != "production":
        yield Finding(check="profile", result="ok", detail=settings.profile)
        return
    sqlite = settings.database.startswith("sqlite")
    mend = "set HOLDFAST_DATABASE_URL to PostgreSQL; SQLite serves one machine" if sqlite else ""
    serving = settings.serving
    detail = f"production, {serving.replica_count} replicas or more, {serving.gateway_count} gateways"
    yield Finding(check="profile", result="warn" if sqlite else "ok", detail=detail, mend=mend)


def _clock(settings: Settings) -> Iterator[Finding]:
    """A clock that stands before the newest record would stop leases and cool-downs from ending."""
    newest = _newest(settings.folder)
    ahead = newest - datetime.now(UTC).timestamp() if newest else 0.0
    good = ahead < 60.0
    detail = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC" + ("" if good else f", {ahead:.0f} s behind the newest file of the home")
    yield Finding(check="clock", result="ok" if good else "bad", detail=detail, mend="" if good else "set the clock (NTP)")


def _newest(home: Path) -> float | None:
    return max((p.stat().st_mtime for p in home.glob("*") if p.is_file()), default=None)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+", maxsplit=1)[0].split(".")[:3] if part.isdigit())
