"""What the data plane reads and writes over HTTP."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from holdfast.domain.captures import MAX_TEXT_CHARS
from holdfast.errors import RequestInvalid

BODY_BYTES = 4 << 20
"""A larger body is refused before it is read to its end."""
MAX_ITEMS = 256
"""Texts in one request."""
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
REQUEST_ID = r"^[A-Za-z0-9._:/-]{1,128}$"
_REQUEST_ID = re.compile(REQUEST_ID)
SliceName = Annotated[str, StringConstraints(min_length=1, max_length=64)]
SliceValue = Annotated[str, StringConstraints(max_length=256)]


class Item(BaseModel):
    """One text to be answered."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    text: str
    request_id: Annotated[str, Field(pattern=REQUEST_ID)] | None = None
    slices: Annotated[dict[SliceName, SliceValue], Field(max_length=16)] = {}


class Items(BaseModel):
    """Several texts to be answered."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    items: Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS)]


_ONE: TypeAdapter[Item] = TypeAdapter(Item)
_MANY: TypeAdapter[Items] = TypeAdapter(Items)


def read_body(raw: bytes) -> tuple[list[Item], bool]:
    """The texts of a request, and whether they came as ``items``.

    Raises:
        RequestInvalid: with the place of the first mistake.
    """
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise RequestInvalid(place=f"byte {error.start}", problem="the body is not UTF-8", remedy="send JSON in UTF-8") from error
    several = raw.lstrip().startswith(b"{") and b'"items"' in raw and b'"text"' not in raw.split(b'"items"', 1)[0]
    try:
        items = _MANY.validate_json(raw).items if several else [_ONE.validate_json(raw)]
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise RequestInvalid(place=place, problem=first["msg"], remedy='send {"text": "…"} or {"items": [{"text": "…"}]}') from error
    for index, item in enumerate(items):
        check_text(item.text, f"items.{index}.text" if several else "text")
    return items, several


def is_request_id(text: str) -> bool:
    """Whether a text may be a request id.

    >>> is_request_id("req-1"), is_request_id("two words"), is_request_id("")
    (True, False, False)
    """
    return _REQUEST_ID.fullmatch(text) is not None


def check_text(text: str, place: str) -> None:
    """Raises RequestInvalid on a text that is empty, too long, or no text at all."""
    if not text.strip():
        raise RequestInvalid(place=place, problem="the text is empty", remedy="send a text that is not blank")
    if len(text) > MAX_TEXT_CHARS:
        problem = f"the text has {len(text)} characters, more than {MAX_TEXT_CHARS}"
        raise RequestInvalid(place=place, problem=problem, remedy="shorten it before it is sent")
    if "\x00" in text or len(CONTROL.findall(text)) * 10 > len(text):
        raise RequestInvalid(place=place, problem="it holds binary data, not text", remedy="send text; decode files first")
