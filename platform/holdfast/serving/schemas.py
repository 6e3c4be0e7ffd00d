"""What the data plane reads and writes over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from holdfast.domain.captures import MAX_TEXT_CHARS, unstorable
from holdfast.domain.tasks import MAX_SLICE_NAME, MAX_SLICE_VALUE, MAX_SLICES
from holdfast.errors import RequestInvalid

BODY_BYTES = 4 << 20
"""A larger body is refused before it is read to its end."""
MAX_ITEMS = 256
"""Texts in one request."""
MAX_LABELS = 1000
"""Labels in one request."""
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
REQUEST_ID = r"^[A-Za-z0-9._:/-]{1,128}$"
_REQUEST_ID = re.compile(REQUEST_ID)


def _no_control(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("it holds a control character")
    return text


SliceName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_SLICE_NAME), AfterValidator(_no_control)]
SliceValue = Annotated[str, StringConstraints(max_length=MAX_SLICE_VALUE), AfterValidator(_no_control)]
Slices = Annotated[dict[SliceName, SliceValue], Field(max_length=MAX_SLICES)]


class Item(BaseModel):
    """One text to be answered."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    text: str
    request_id: Annotated[str, Field(pattern=REQUEST_ID)] | None = None
    slices: Slices = {}


class Items(BaseModel):
    """Several texts to be answered."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    items: Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS)]


def _json_text(given: object) -> object:
    return json.dumps(given, ensure_ascii=False) if isinstance(given, list | dict) else given


class FeedbackItem(BaseModel):
    """The right label of one answer."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    request_id: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    label: Annotated[str, BeforeValidator(_json_text), StringConstraints(min_length=1, max_length=10_000)]
    """One label; for sets a list of labels, for extractions a list of spans, either as JSON or as text that holds JSON."""
    task: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = None
    """Where it is given, a wrong label is refused at once; else it is found out when the label meets its capture."""
    source: Annotated[str, StringConstraints(min_length=1, max_length=120)] | None = None
    """Who says so; the name of the key when absent."""


class FeedbackItems(BaseModel):
    """Several labels."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    items: Annotated[list[FeedbackItem], Field(min_length=1, max_length=MAX_LABELS)]


_SLICES: TypeAdapter[dict[str, str]] = TypeAdapter(Slices)
_ONE: TypeAdapter[Item] = TypeAdapter(Item)
_MANY: TypeAdapter[Items] = TypeAdapter(Items)
_LABEL: TypeAdapter[FeedbackItem] = TypeAdapter(FeedbackItem)
_LABELS: TypeAdapter[FeedbackItems] = TypeAdapter(FeedbackItems)
Read = TypeVar("Read")


def read_body(raw: bytes) -> tuple[list[Item], bool]:
    """The texts of a request, and whether they came as ``items``.

    Raises:
        RequestInvalid: with the place of the first mistake.
    """
    check_utf8(raw)
    several = raw.lstrip().startswith(b"{") and b'"items"' in raw and b'"text"' not in raw.split(b'"items"', 1)[0]
    remedy = 'send {"text": "…"} or {"items": [{"text": "…"}]}'
    items = read_as(_MANY, raw, remedy).items if several else [read_as(_ONE, raw, remedy)]
    for index, item in enumerate(items):
        check_text(item.text, f"items.{index}.text" if several else "text")
    return items, several


def read_feedback(raw: bytes) -> list[FeedbackItem]:
    """The labels of a request. Raises RequestInvalid, with the place of the first mistake."""
    check_utf8(raw)
    remedy = 'send {"request_id": "…", "label": "…"} or {"items": [{"request_id": "…", "label": "…"}]}'
    several = raw.lstrip().startswith(b"{") and b'"items"' in raw and b'"label"' not in raw.split(b'"items"', 1)[0]
    items = read_as(_LABELS, raw, remedy).items if several else [read_as(_LABEL, raw, remedy)]
    for item in items:
        for place, text in {"request_id": item.request_id, "label": item.label, "source": item.source or ""}.items():
            if (problem := unstorable(text)) is not None:
                raise RequestInvalid(place=place, problem=problem, remedy="send well-formed text without NUL")
    return items


def read_slices(given: Mapping[str, object], place: str) -> dict[str, str]:
    """The slices of a request. Raises RequestInvalid."""
    try:
        return _SLICES.validate_python(given, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        remedy = f"send at most {MAX_SLICES} texts, names of {MAX_SLICE_NAME} and values of {MAX_SLICE_VALUE} characters at most"
        raise RequestInvalid(place=place, problem=first["msg"], remedy=remedy) from error


def check_utf8(raw: bytes) -> None:
    """Raises RequestInvalid on a body that is not UTF-8."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise RequestInvalid(place=f"byte {error.start}", problem="the body is not UTF-8", remedy="send JSON in UTF-8") from error


def read_as(kind: TypeAdapter[Read], raw: bytes, remedy: str) -> Read:
    """The value of a JSON body. Raises RequestInvalid, with the place of the first mistake."""
    try:
        return kind.validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise RequestInvalid(place=place, problem=first["msg"], remedy=remedy) from error


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
