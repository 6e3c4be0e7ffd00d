"""What handlers are given: the house, and who calls."""

from __future__ import annotations

from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request
from fastapi.security import HTTPBearer

from holdfast.errors import RequestInvalid
from holdfast.ports import House
from holdfast.settings import Settings

bearer = HTTPBearer(auto_error=False, description="An API key. The guard in front of the app has checked it; this documents it.")


def _house(request: Request) -> House:
    house = request.app.state.house
    assert isinstance(house, House)
    return house


def _settings(request: Request) -> Settings:
    settings = request.app.state.settings
    assert isinstance(settings, Settings)
    return settings


def _caller(request: Request) -> str:
    return str(request.state.caller)


def _expected_generation(
    if_match: Annotated[str | None, Header(description='Generation as an entity tag, such as `"7"`.')] = None,
) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    digits = if_match.strip().removeprefix("W/").strip('"')
    if not digits.isdecimal():
        raise RequestInvalid(place="If-Match", problem=f"{if_match!r} is not a generation", remedy='send the number in quotes, such as "7"')
    return int(digits)


HouseOf = Annotated[House, Depends(_house)]
SettingsOf = Annotated[Settings, Depends(_settings)]
Caller = Annotated[str, Depends(_caller)]
"""Name of the key that the request carries; the actor of what it does."""
IfMatch = Annotated[int | None, Depends(_expected_generation)]


Value = TypeVar("Value")


def agreed(place: str, *given: Value | None) -> Value | None:
    """The one value that was given, by header or body; None when none was. Raises RequestInvalid when two differ."""
    values = [value for value in given if value is not None]
    if any(value != values[0] for value in values):
        raise RequestInvalid(place=place, problem="header and body differ", remedy="send it once")
    return values[0] if values else None
