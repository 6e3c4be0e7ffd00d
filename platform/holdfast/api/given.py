"""Right answers as callers send them: in the form of the task's kind, or as text."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_CHARS = 20_000


class SpanSent(BaseModel):
    """One field that stands in the text, by its offsets in characters."""

    model_config = ConfigDict(extra="forbid")
    field: Annotated[str, Field(min_length=1, max_length=200)]
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=1)]
    text: Annotated[str | None, Field(description="Refused when the input has something else there.")] = None


Given = Annotated[
    Annotated[str, Field(max_length=MAX_CHARS)] | list[str] | list[SpanSent] | dict[str, str | list[str]],
    Field(
        description="A label; a list of labels (multi-label); a list of spans, or field to text where that text stands once (extraction). "
        "As a text also the JSON of these, or labels divided by `|`."
    ),
]
"""A right answer of any kind."""


def as_text(given: Given) -> str:
    """A text that the contract of the task can read (`labelling.read_answer`)."""
    if isinstance(given, str):
        return given
    if isinstance(given, dict):
        return json.dumps(given, ensure_ascii=False)
    return json.dumps([one if isinstance(one, str) else one.model_dump(exclude_none=True) for one in given], ensure_ascii=False)
