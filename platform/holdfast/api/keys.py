"""API keys: random, shown once, stored as SHA-256; and who a key belongs to."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from holdfast.api.dependencies import Caller, HouseOf
from holdfast.api.failures import documented
from holdfast.errors import Conflict, NotFound, StorageRefused
from holdfast.ports import House, UnitOfWork

PREFIX = "hf_"
FIRST_KEY = "admin"
FRESH_S = 1.0
"""How long a list of valid keys is trusted: a revoked key works for so long at most."""

router = APIRouter(prefix="/keys", tags=["keys"])


def new_key() -> str:
    """A key of 256 random bits: the prefix and 43 url-safe characters."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(key: str) -> str:
    """SHA-256 of a key, in hexadecimal. A fast hash is enough for 256 random bits (ASVS 6.5.2)."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Who a valid key belongs to."""

    name: str
    key_hash: str


class KeyRing:
    """The valid keys, asked for again when they are older than `FRESH_S`. Safe to use from several threads."""

    def __init__(self, unit_of_work: Callable[[], UnitOfWork], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._unit_of_work, self._monotonic = unit_of_work, monotonic
        self._lock = threading.Lock()
        self._valid: Mapping[str, str] = {}
        self._read_at = float("-inf")

    def holder(self, key: str) -> KeyHolder | None:
        """Who this key belongs to; None when it is not valid. Raises what the database raises: then nobody gets in."""
        return self.holder_of_hash(hash_of(key))

    def holder_of_hash(self, key_hash: str) -> KeyHolder | None:
        """As `holder`, for a session that remembers the hash of its key. Compares with every key, each in constant time."""
        found = None
        for known, name in self._current().items():
            if hmac.compare_digest(known, key_hash):
                found = KeyHolder(name, known)
        return found

    def forget(self) -> None:
        """Ask the database at the next look."""
        with self._lock:
            self._read_at = float("-inf")

    def _current(self) -> Mapping[str, str]:
        with self._lock:
            if self._monotonic() - self._read_at >= FRESH_S:
                with self._unit_of_work() as work:
                    self._valid = dict(work.keys.valid())
                self._read_at = self._monotonic()
            return self._valid


def ensure_admin_key(house: House, folder: Path) -> Path:
    """The file of the first key, ``folder/admin.key`` (0600). Makes key and file when no valid key exists.

    Raises:
        StorageRefused: when the file cannot be written; then no key was made.
    """
    path = folder / "admin.key"
    with house.unit_of_work() as work:
        if work.keys.valid():
            return path
        key = new_key()
        work.keys.add(name=FIRST_KEY, key_hash=hash_of(key), created_at=house.clock())
        work.ledger.append(at=house.clock(), kind="key.created", task="", actor="first start", body={"name": FIRST_KEY})
        _write_private(path, key)
        work.commit()
    return path


def _write_private(path: Path, text: str) -> None:
    beside = path.with_suffix(".part")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise StorageRefused(place=str(path), reason=error.strerror or "unknown") from error


class KeyWanted(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9._-]{0,62}$", description="Shown as the actor of what the key does.")]


class KeyMade(BaseModel):
    """A new key; it is shown this once."""

    name: str
    key: str


class KeyName(BaseModel):
    """A key that is valid."""

    name: str


@router.get("", summary="Names of the valid keys")
def list_keys(house: HouseOf) -> list[KeyName]:
    """The keys themselves are stored nowhere."""
    with house.unit_of_work() as work:
        return [KeyName(name=name) for name in sorted(work.keys.valid().values())]


@router.post("", status_code=201, summary="Make a key; it is shown once", responses=documented(409))
def make_key(wanted: KeyWanted, house: HouseOf, caller: Caller, request: Request) -> KeyMade:
    """A name that is in use is refused."""
    key = new_key()
    with house.unit_of_work() as work:
        work.keys.add(name=wanted.name, key_hash=hash_of(key), created_at=house.clock())
        work.ledger.append(at=house.clock(), kind="key.created", task="", actor=caller, body={"name": wanted.name})
        work.commit()
    _ring(request).forget()
    return KeyMade(name=wanted.name, key=key)


@router.delete("/{name}", status_code=204, summary="Revoke a key", responses=documented(404, 409))
def revoke_key(name: str, house: HouseOf, caller: Caller, request: Request) -> Response:
    """Takes effect within a second in every process. The last valid key cannot be revoked: nobody could get in again."""
    with house.unit_of_work() as work:
        names = set(work.keys.valid().values())
        if name not in names:
            raise NotFound(kind="key", name=name)
        if names == {name}:
            raise Conflict(problem=f"The key {name!r} is the last valid one; make another before it is revoked.")
        work.keys.revoke(name)
        work.ledger.append(at=house.clock(), kind="key.revoked", task="", actor=caller, body={"name": name})
        work.commit()
    _ring(request).forget()
    return Response(status_code=204)


def _ring(request: Request) -> KeyRing:
    ring = request.app.state.ring
    assert isinstance(ring, KeyRing)
    return ring
