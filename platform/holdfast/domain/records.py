"""Frozen records to plain JSON values and back, and the digest of such a value.

Every record of the domain is a frozen dataclass of strings, numbers, booleans, aware datetimes, tuples, mappings with
string keys, and other such records. ``to_plain`` and ``from_plain`` are inverse to each other on them; ``digest_of`` names
a value by its content.

>>> @dataclasses.dataclass(frozen=True)
... class Point:
...     x: int
...     tags: tuple[str, ...]
>>> to_plain(Point(1, ("a",)))
{'x': 1, 'tags': ['a']}
>>> from_plain(Point, {"x": 1, "tags": ["a"]})
Point(x=1, tags=('a',))
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

Record = TypeVar("Record")
Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"


def to_plain(value: object) -> Plain:
    """The JSON form of a record or of a part of one. Raises TypeError on a value no record may hold."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | frozenset):
        return [to_plain(item) for item in value]
    raise TypeError(f"a record may not hold a {type(value).__name__}")


def from_plain(kind: type[Record], plain: object) -> Record:
    """The record of class ``kind`` that ``plain`` is the JSON form of. Fields absent from ``plain`` take their default."""
    return typing.cast(Record, _read(kind, plain))


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(kind: Any, plain: Any) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if plain is None:
            return None
        return _read(next(arm for arm in get_args(kind) if arm is not type(None)), plain)
    if origin is tuple:
        item = get_args(kind)[0]
        return tuple(_read(item, part) for part in plain)
    if origin is not None and issubclass(origin if isinstance(origin, type) else object, Mapping):
        return {key: _read(get_args(kind)[1], part) for key, part in plain.items()}
    if kind is datetime:
        return datetime.fromisoformat(plain)
    if dataclasses.is_dataclass(kind):
        hints = _hints(typing.cast(type, kind))
        known = {f.name for f in dataclasses.fields(kind)}
        make = typing.cast(Any, kind)
        return make(**{name: _read(hints[name], part) for name, part in plain.items() if name in known})
    if kind is float and plain is not None:
        return float(plain)
    if origin is Literal:
        return plain
    return plain


def canonical(value: object) -> bytes:
    """The one byte string of a record's JSON form: sorted keys, no blanks, UTF-8."""
    plain = to_plain(value)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: object) -> str:
    """SHA-256 of the canonical form, as ``sha256:`` and 64 hexadecimal digits.

    >>> digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
    True
    """
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()
