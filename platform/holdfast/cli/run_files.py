"""What a running home writes of itself: the lock, the state of its processes, and why a start failed."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from holdfast import errors
from holdfast.domain.records import Plain, from_plain, to_plain
from holdfast.errors import HoldfastError, HomeInUse, StorageRefused

ChildState = Literal["waiting", "starting", "ready", "silent", "restarting", "ended"]
HomeState = Literal["starting", "running", "stopping", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildStatus:
    """One process of the home as the supervisor sees it."""

    name: str
    state: ChildState
    pid: int | None
    restarts: int
    since: datetime
    """When it entered this state."""
    log: str
    url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeStatus:
    """All processes of the home; ``run/status.json``."""

    state: HomeState
    pid: int
    """Of the supervisor."""
    started_at: datetime
    children: tuple[ChildStatus, ...]


def write_status(run: Path, status: HomeStatus) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    _write(run / "status.json", to_plain(status))


def read_status(run: Path) -> HomeStatus | None:
    """The newest status; None when there is none that can be read."""
    try:
        return from_plain(HomeStatus, json.loads((run / "status.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_failure(run: Path, error: HoldfastError) -> None:
    """Leave the error for whoever started the supervisor."""
    _write(run / "failure.json", {"kind": type(error).__name__, "fields": {k: str(v) for k, v in error.fields.items()}})


def take_failure(run: Path) -> HoldfastError | None:
    """The error left by a supervisor, once."""
    path = run / "failure.json"
    try:
        plain = json.loads(path.read_text())
        path.unlink()
    except (OSError, ValueError):
        return None
    kind = getattr(errors, plain["kind"], HoldfastError)
    return kind(**plain["fields"]) if issubclass(kind, HoldfastError) else None


@contextmanager
def lock(home: Path) -> Iterator[None]:
    """Hold the home alone; the operating system lets go when this process dies, however it dies.

    Raises:
        HomeInUse: when another process holds it.
        StorageRefused: when the home cannot be written.
    """
    path = home / "run" / "supervisor.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageRefused(place=path, reason=error.strerror) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise HomeInUse(home=home, pid=holder(home) or "unknown") from None
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def is_locked(home: Path) -> bool:
    """Whether a supervisor holds the home now."""
    path = home / "run" / "supervisor.lock"
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def is_up(home: Path) -> bool:
    """Whether a supervisor holds the home and was not told to end."""
    status = read_status(home / "run")
    return is_locked(home) and (status is None or status.state not in ("stopping", "stopped"))


def holder(home: Path) -> int | None:
    """The process that took the lock last."""
    try:
        return int((home / "run" / "supervisor.lock").read_text())
    except (OSError, ValueError):
        return None


def _write(path: Path, plain: Plain) -> None:
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "w") as file:
            json.dump(plain, file, indent=1)
        Path(name).replace(path)
    except OSError as error:
        raise StorageRefused(place=path, reason=error.strerror) from None
