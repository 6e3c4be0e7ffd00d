"""What a database says, in the words of the house."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from holdfast.errors import Conflict, HoldfastError, PartUnavailable, StorageRefused

_STORAGE = ("disk is full", "readonly database", "read-only", "unable to open database file", "disk i/o error", "no space left")
_STORAGE_STATES = {"53100", "25006", "58030"}
"""PostgreSQL: disk full, read-only transaction, I/O error."""


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Raise the house's errors in place of the database's.

    Args:
        place: what is named in a StorageRefused.

    Raises:
        StorageRefused: the disk is full or read-only, or the file cannot be opened.
        Conflict: a constraint refused the row.
        PartUnavailable: anything else the database says no to: locked, gone, no such table.
    """
    try:
        yield
    except IntegrityError as error:
        raise Conflict(problem=f"The database refused the row: {_reason(error)}.") from error
    except DBAPIError as error:
        raise _of(error, place) from error
    except PoolTimeout as error:
        raise PartUnavailable(part="database", reason="every connection is in use") from error
    except SQLAlchemyError as error:
        raise PartUnavailable(part="database", reason=_reason(error)) from error


def _of(error: DBAPIError, place: str) -> HoldfastError:
    reason = _reason(error)
    state = getattr(error.orig, "sqlstate", None)
    if state in _STORAGE_STATES or any(words in reason.lower() for words in _STORAGE):
        return StorageRefused(place=place, reason=reason)
    if "no such table" in reason or state == "42P01":
        return PartUnavailable(part="database", reason="its tables are missing or old (start with `holdfast up`, which migrates)")
    return PartUnavailable(part="database", reason=reason)


def _reason(error: SQLAlchemyError) -> str:
    """The first line of what the driver said; never the statement, which holds texts of requests."""
    said = error.orig if isinstance(error, DBAPIError) else error
    return (str(said).splitlines() or [type(said).__name__])[0].strip().rstrip(".")
