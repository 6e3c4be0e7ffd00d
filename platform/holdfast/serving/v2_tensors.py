"""Tensors of the Open Inference Protocol v2: read from JSON or from the binary extension, and written as either.

Sources: KServe "Open Inference Protocol" (REST), and Triton's "Binary Tensor Data Extension": a header
``Inference-Header-Content-Length`` says where the JSON ends and the raw tensors begin; an element of BYTES is its length as a
little-endian uint32, then the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter
from pydantic_core import to_json

from holdfast.errors import RequestInvalid
from holdfast.serving.schemas import MAX_ITEMS, REQUEST_ID, check_utf8, read_as

Parameter = bool | int | float | str
LENGTH_HEADER = "inference-header-content-length"
SHAPE_REMEDY = 'send one input {"name": "text", "datatype": "BYTES", "shape": [n], "data": ["…", …]}'


class Tensor(BaseModel):
    """An input of a request."""

    model_config = ConfigDict(strict=True, frozen=True)

    name: Literal["text"]
    datatype: Literal["BYTES"]
    shape: Annotated[list[Annotated[int, Field(ge=0, le=MAX_ITEMS)]], Field(min_length=1, max_length=4)]
    parameters: dict[str, Parameter] = {}
    data: list[Any] | None = None
    """Texts, nested or flat; None when they come in the binary part."""


class Wanted(BaseModel):
    """An output that is asked for."""

    model_config = ConfigDict(strict=True, frozen=True)

    name: str
    parameters: dict[str, Parameter] = {}


class InferRequest(BaseModel):
    """The JSON of a request."""

    model_config = ConfigDict(strict=True, frozen=True)

    id: Annotated[str, StringConstraints(pattern=REQUEST_ID)] | None = None
    parameters: dict[str, Parameter] = {}
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=1)]
    outputs: list[Wanted] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Output:
    """A tensor of a reply."""

    name: str
    datatype: Literal["BYTES", "FP32", "BOOL"]
    values: Sequence[str] | NDArray[Any]
    """Texts for BYTES; else an array of the tensor's shape."""

    @property
    def shape(self) -> list[int]:
        """As the protocol writes it."""
        return [len(self.values)] if self.datatype == "BYTES" else [int(n) for n in np.shape(self.values)]

    def raw(self) -> bytes:
        """For the binary part."""
        if self.datatype == "BYTES":
            return b"".join(struct.pack("<I", len(one)) + one for one in (str(text).encode() for text in self.values))
        return np.asarray(self.values).astype("<f4" if self.datatype == "FP32" else np.bool_).tobytes()

    def plain(self) -> list[Any]:
        """For JSON: flat, in row-major order."""
        return list(self.values) if self.datatype == "BYTES" else np.asarray(self.values).reshape(-1).tolist()


_REQUEST: TypeAdapter[InferRequest] = TypeAdapter(InferRequest)


def read_request(raw: bytes, json_length: str | None) -> tuple[InferRequest, list[str]]:
    """The request and its texts. ``json_length`` is the header of the binary extension; None when all is JSON.

    Raises RequestInvalid.
    """
    size = len(raw) if json_length is None else _length(json_length, len(raw))
    check_utf8(raw[:size])
    request = read_as(_REQUEST, raw[:size], SHAPE_REMEDY)
    tensor, binary = request.inputs[0], raw[size:]
    if "binary_data_size" in tensor.parameters:
        if tensor.parameters["binary_data_size"] != len(binary):
            raise _invalid("inputs.0.parameters.binary_data_size", f"{len(binary)} bytes follow the JSON")
        texts = _from_binary(binary)
    elif binary or tensor.data is None:
        raise _invalid("inputs.0.data", "there is none, or bytes follow that no input claims")
    else:
        texts = _flat(tensor.data)
    if int(np.prod(tensor.shape)) != len(texts) or not texts or len(texts) > MAX_ITEMS:
        raise _invalid("inputs.0.shape", f"it is {tensor.shape}, and {len(texts)} texts came (1 to {MAX_ITEMS} are answered)")
    return request, texts


def reply_bytes(head: dict[str, object], outputs: Sequence[Output], binary: frozenset[str]) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a reply; the outputs named in ``binary`` go into the binary part."""
    described, tail = [], b""
    for output in outputs:
        one: dict[str, object] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        if output.name in binary:
            raw = output.raw()
            tail += raw
            one["parameters"] = {"binary_data_size": len(raw)}
        else:
            one["data"] = output.plain()
        described.append(one)
    body = to_json({**head, "outputs": described})
    if not binary:
        return body, {"content-type": "application/json"}
    return body + tail, {"content-type": "application/octet-stream", LENGTH_HEADER: str(len(body))}


def _length(text: str, size: int) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) > size:
        raise _invalid(LENGTH_HEADER, f"it is not a number of bytes up to {size}")
    return int(text)


def _from_binary(raw: bytes) -> list[str]:
    texts: list[str] = []
    at = 0
    while at < len(raw):
        if at + 4 > len(raw) or (end := at + 4 + struct.unpack_from("<I", raw, at)[0]) > len(raw):
            raise _invalid("inputs.0", f"its bytes end within element {len(texts)}")
        try:
            texts.append(raw[at + 4 : end].decode())
        except UnicodeDecodeError as error:
            raise _invalid("inputs.0", f"element {len(texts)} is not UTF-8") from error
        at = end
    return texts


def _flat(values: Sequence[Any]) -> list[str]:
    found: list[str] = []
    pending = list(reversed(values))
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending += reversed(one)
        elif isinstance(one, str):
            found.append(one)
        else:
            raise _invalid("inputs.0.data", f"element {len(found)} is not a text")
    return found


def _invalid(place: str, problem: str) -> RequestInvalid:
    return RequestInvalid(place=place, problem=problem, remedy=SHAPE_REMEDY)
