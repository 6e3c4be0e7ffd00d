"""Composition for the operator's hand: the processes of a home, its database without a running home, and files people bring."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from holdfast import bootstrap
from holdfast.backends.contract_file import read_contract
from holdfast.backends.example_files import read_examples, read_history, read_labels
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.domain.ledger import GENESIS, LedgerEntry, verify
from holdfast.domain.producers import Producer
from holdfast.errors import Conflict, NotFound, RequestInvalid, StorageRefused
from holdfast.ports import UnitOfWork
from holdfast.processes import ProcessSpec
from holdfast.settings import Settings

__all__ = [
    "add_key", "admin_key", "check_base", "key_names", "ledger_entries", "make_home", "open_database", "process_commands",
    "read_contract", "read_examples", "read_history", "read_labels", "revoke_key", "schema_is_current", "tasks_of_captures",
    "verify_ledger",
]  # fmt: skip

FOLDERS = ("spool", "adapters", "snapshots", "work", "reports", "evidently", "mlflow", "broker", "logs", "run", "keys", "cache")
ADMIN = "admin"
AT_ONCE = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
"""A head of one machine has nowhere to move its work to; by default it waits 30 s for that."""
KEY_NAME = re.compile(r"[a-z][a-z0-9._-]{0,62}")


def process_commands(settings: Settings) -> tuple[ProcessSpec, ...]:
    """Every process of an embedded home, in the order of starting."""
    from holdfast.backends import evidently_reports, mlflow_registry, ray_fleet

    home, host, ports = settings.folder, settings.host, settings.ports
    python = sys.executable
    mlflow_argv, mlflow_env = mlflow_registry.server_command(home, host=host, port=ports.mlflow)
    ray_argv, ray_env = ray_fleet.head_command(settings)
    ui_argv, ui_env = evidently_reports.ui_command(home, host=host, port=ports.evidently)
    return (
        _spec("mlflow", mlflow_argv, mlflow_env, settings.local(ports.mlflow) + "/health"),
        _spec("ray", ray_argv, ray_env | AT_ONCE, settings.local(ports.ray_dashboard) + "/api/version"),
        _spec("api", [python, "-m", "holdfast.api"], {}, settings.local(ports.api) + "/healthz"),
        _spec("worker", [python, "-m", "holdfast_jobs"], ray_env, None),
        *_gateways(settings, ray_env if settings.ray_address is None else {}),
        _spec("evidently", ui_argv, ui_env, settings.local(ports.evidently) + "/"),
    )


def _gateways(settings: Settings, ray_env: dict[str, str]) -> Iterator[ProcessSpec]:
    """A gateway joins a new head by itself and holds requests meanwhile, so it is not started anew with it.

    One that joins another cluster gets nothing of the home's head: the token is in the environment.
    """
    ports = settings.own_gateway_ports or (settings.ports.gateway,)
    for number, port in enumerate(ports, start=1):
        argv = [sys.executable, "-m", "holdfast.serving", "--number", str(number)]
        name = "gateway" if number == 1 else f"gateway-{number}"
        yield _spec(name, argv, ray_env, settings.local(port) + "/readyz", needs=("ray",))


def make_home(settings: Settings) -> bool:
    """Make the folders, the database and the first key, and nothing outside of the home; whether the home is new.

    Raises:
        StorageRefused: when the folder cannot be written.
    """
    home = settings.folder
    fresh = not (home / "keys" / "admin.key").exists()
    try:
        for folder in (home, *(home / name for name in FOLDERS)):
            folder.mkdir(mode=0o700, parents=folder == home, exist_ok=True)
    except OSError as error:
        raise StorageRefused(place=error.filename or home, reason=error.strerror) from None
    if not os.access(home, os.W_OK | os.X_OK):
        raise StorageRefused(place=home, reason="no permission to write")
    bootstrap.migrate(settings)
    if fresh:
        _first_key(settings)
    return fresh


def admin_key(settings: Settings) -> str:
    """The key made at first start.

    Raises:
        NotFound: when the home was not made yet.
    """
    path = settings.folder / "keys" / "admin.key"
    try:
        return path.read_text().strip()
    except OSError:
        raise NotFound(kind="key file", name=str(path)) from None


@contextmanager
def open_database(settings: Settings) -> Iterator[UnitOfWork]:
    """One transaction on the database itself; works whether the home runs or not."""
    from holdfast.backends.sql import SqlDatabase

    database = SqlDatabase(settings.database)
    try:
        with database.unit_of_work() as unit:
            yield unit
    finally:
        database.dispose()


def producers(settings: Settings) -> tuple[Producer, ...]:
    """The processes that accepted captures, with what of each is missing."""
    from holdfast.backends.sql import SqlDatabase

    database = SqlDatabase(settings.database)
    try:
        return database.log().producers()
    finally:
        database.dispose()


def verify_ledger(settings: Settings) -> tuple[int, str]:
    """The number of entries of the whole chain and the hash of its head, read straight from the database.

    Raises:
        LedgerBroken: at the first row that was changed.
    """
    with open_database(settings) as unit:
        head = GENESIS

        def passing() -> Iterator[LedgerEntry]:
            nonlocal head
            for entry in _entries(unit):
                head = entry.hash
                yield entry

        return verify(passing()), head


def ledger_entries(settings: Settings) -> tuple[LedgerEntry, ...]:
    """Every entry in order."""
    with open_database(settings) as unit:
        return tuple(_entries(unit))


def add_key(settings: Settings, name: str, *, actor: str = "operator") -> str:
    """Make a key of 256 random bits; only its hash is stored. Raises RequestInvalid, AlreadyExists."""
    if not KEY_NAME.fullmatch(name):
        raise RequestInvalid(
            place="NAME", problem=f"{name!r} cannot name a key", remedy="use a lower-case letter, then letters, digits, . _ -"
        )
    with open_database(settings) as unit:
        key = _new_key(unit, name, actor)
        unit.commit()
    return key


def key_names(settings: Settings) -> tuple[str, ...]:
    """Names of the valid keys, in order."""
    with open_database(settings) as unit:
        return tuple(sorted(unit.keys.valid().values()))


def revoke_key(settings: Settings, name: str) -> None:
    """Make a key useless. Raises NotFound, and Conflict for the last one."""
    with open_database(settings) as unit:
        names = set(unit.keys.valid().values())
        if name not in names:
            raise NotFound(kind="key", name=name)
        if names == {name}:
            raise Conflict(problem=f"The key {name!r} is the last valid one; make another before it is revoked.")
        unit.keys.revoke(name)
        unit.ledger.append(at=bootstrap.now(), kind="key.revoked", task="", actor="operator", body={"name": name})
        unit.commit()


def tasks_of_captures(settings: Settings, ids: Sequence[str]) -> Mapping[CaptureId, TaskName]:
    """The task of every capture that the database has by now; the home need not run. Raises PartUnavailable."""
    from holdfast.backends.sql import SqlDatabase

    database = SqlDatabase(settings.database)
    try:
        return database.log().tasks_of([CaptureId(name) for name in ids])
    finally:
        database.dispose()


def schema_is_current(settings: Settings) -> bool:
    """Whether the database has the newest schema. Raises PartUnavailable."""
    from holdfast.backends.sql import SqlDatabase

    database = SqlDatabase(settings.database)
    try:
        return database.check_current()
    finally:
        database.dispose()


def check_base(settings: Settings, name: str) -> str:
    """The path of a base model after its digest was compared with the pin. Raises BaseModelRefused."""
    from holdfast.backends.lora.base_model import BaseModel

    pin = settings.bases[name]
    BaseModel.open(name, pin.path, pin.sha256)
    return pin.path


def _entries(unit: UnitOfWork) -> Iterator[LedgerEntry]:
    after = 0
    while found := unit.ledger.entries(after=after, limit=5_000):
        yield from found
        after = found[-1].seq


def _first_key(settings: Settings) -> None:
    with open_database(settings) as unit:
        taken = set(unit.keys.valid().values())
        # The file was lost when a key of that name is valid: it may be in wrong hands, so it is revoked.
        if ADMIN in taken:
            unit.keys.revoke(ADMIN)
        name = ADMIN if not taken else f"{ADMIN}-{bootstrap.now():%Y%m%d%H%M%S}"
        _write_key(settings.folder / "keys" / "admin.key", _new_key(unit, name, "first start"))
        unit.commit()


def _new_key(unit: UnitOfWork, name: str, actor: str) -> str:
    key = "hf_" + secrets.token_urlsafe(32)
    unit.keys.add(name=name, key_hash=hashlib.sha256(key.encode()).hexdigest(), created_at=bootstrap.now())
    unit.ledger.append(at=bootstrap.now(), kind="key.created", task="", actor=actor, body={"name": name})
    return key


def _write_key(path: Path, key: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")
    except OSError as error:
        raise StorageRefused(place=path, reason=error.strerror) from None


def _spec(name: str, argv: list[str], env: dict[str, str], ready_url: str | None, *, needs: tuple[str, ...] = ()) -> ProcessSpec:
    return ProcessSpec(name=name, argv=tuple(argv), env=env, ready_url=ready_url, needs=needs)
