"""W3C trace context: the trace that a request belongs to, taken from its headers or begun here.

Source: W3C Recommendation "Trace Context", level 1 (2021), sections 2 and 3: a `traceparent` that cannot be read starts a new
trace and its `tracestate` is dropped; a higher version is read by its first four fields.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
MAX_STATE_CHARS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One request's place in a trace."""

    trace_id: str
    span_id: str
    """Of this gateway's own work on the request."""
    flags: str
    state: str = ""

    def headers(self) -> dict[str, str]:
        """What the reply says, so that the caller can find the gateway's span."""
        found = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{self.flags}"}
        return found | ({"tracestate": self.state} if self.state else {})


def trace_of(headers: Mapping[str, str]) -> Trace:
    """The trace of a request; a new one when it names none that can be read.

    >>> trace_of({"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}).trace_id == "a" * 32
    True
    >>> trace_of({"traceparent": "00-" + "0" * 32 + "-" + "b" * 16 + "-01"}).trace_id == "0" * 32
    False
    """
    span_id = secrets.token_hex(8)
    found = _PARENT.fullmatch(headers.get("traceparent", "").strip())
    if found is None or not _sound(*found.groups()):
        return Trace(trace_id=secrets.token_hex(16), span_id=span_id, flags="00")
    state = headers.get("tracestate", "")
    return Trace(trace_id=found[2], span_id=span_id, flags=found[4], state=state if len(state) <= MAX_STATE_CHARS else "")


def _sound(version: str, trace_id: str, parent_id: str, _flags: str, more: str | None) -> bool:
    zeros = not trace_id.strip("0") or not parent_id.strip("0")
    return version != "ff" and not zeros and not (version == "00" and more)
