"""Safetensors files, checked by ourselves before any library reads them.

Layout: 8 bytes little-endian length n of the header; n bytes of JSON that map each tensor name to dtype, shape and
``data_offsets`` [begin, end) in the data that follows.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import AdapterRefused

MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 4096
MAX_DIMENSIONS = 8
WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of one value, by the dtypes that are allowed."""


@dataclass(frozen=True, slots=True)
class _Span:
    name: str
    dtype: str
    begin: int
    end: int


def check_tensors(path: Path) -> None:
    """Refuse a file that is not whole, uses another dtype, leaves gaps or overlaps, or holds NaN or infinities.

    Raises:
        AdapterRefused: with the first thing that is off.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise _refused(path, f"its header of {length} bytes is empty or longer than {MAX_HEADER_BYTES}")
        spans = _spans(path, file.read(length))
        _check_layout(path, spans, data_bytes=path.stat().st_size - 8 - length)
        for span in spans:
            if not _all_finite(np.frombuffer(file.read(span.end - span.begin), dtype=np.uint8), span.dtype):
                raise _refused(path, f"{span.name} holds values that are not finite numbers")


def _spans(path: Path, raw: bytes) -> list[_Span]:
    """The tensors of a header in the order of their data."""
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        raise _refused(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _refused(path, "its header is not a mapping")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(value, str) for value in notes.values()):
        raise _refused(path, "its notes are not texts")
    if not 1 <= len(header) <= MAX_TENSORS:
        raise _refused(path, f"it has {len(header)} tensors, not 1 .. {MAX_TENSORS}")
    return sorted((_span(path, name, spec) for name, spec in header.items()), key=lambda span: span.begin)


def _span(path: Path, name: str, spec: Any) -> _Span:
    if not isinstance(spec, dict) or set(spec) != {"dtype", "shape", "data_offsets"}:
        raise _refused(path, f"{name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = spec["dtype"], spec["shape"], spec["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise _refused(path, f"{name!r} has dtype {dtype!r}, not one of {', '.join(WIDTHS)}")
    if not _whole_numbers(shape) or not 1 <= len(shape) <= MAX_DIMENSIONS or not _whole_numbers(offsets) or len(offsets) != 2:
        raise _refused(path, f"{name!r} has an impossible shape or place")
    if offsets[1] - offsets[0] != math.prod(shape) * WIDTHS[dtype] or offsets[1] == offsets[0]:
        raise _refused(path, f"{name!r} is empty or its size is not that of its shape")
    return _Span(name, dtype, offsets[0], offsets[1])


def _check_layout(path: Path, spans: list[_Span], *, data_bytes: int) -> None:
    at = 0
    for span in spans:
        if span.begin != at:
            raise _refused(path, f"there is a gap or an overlap before {span.name!r}")
        at = span.end
    if at != data_bytes:
        raise _refused(path, f"it is truncated or too long: {data_bytes} bytes of data where its header names {at}")


def _all_finite(raw: NDArray[np.uint8], dtype: str) -> bool:
    if dtype == "BF16":  # NumPy has no bfloat16: infinities and NaN are the values whose eight exponent bits are all set
        return not bool((raw.view("<u2") & 0x7F80 == 0x7F80).any())
    return bool(np.isfinite(raw.view("<f4" if dtype == "F32" else "<f2")).all())


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 40 for item in value)


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _refused(path: Path, reason: str) -> AdapterRefused:
    return AdapterRefused(folder=path.parent, reason=f"{path.name}: {reason}")
