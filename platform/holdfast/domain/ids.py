"""Ids: typed strings, derived from what they name.

A record is named by what it is made from, never by chance: the same alert always leads to the same retraining id, so asking
twice is asking once.
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType

TaskName = NewType("TaskName", str)
AdapterDigest = NewType("AdapterDigest", str)
CaptureId = NewType("CaptureId", str)
AlertId = NewType("AlertId", str)
RetrainingId = NewType("RetrainingId", str)
VerdictId = NewType("VerdictId", str)
PromotionId = NewType("PromotionId", str)
ReportId = NewType("ReportId", str)
ReviewId = NewType("ReviewId", str)
SnapshotDigest = NewType("SnapshotDigest", str)

_BARE = "base:"
TASK_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


def derive(prefix: str, *parts: object) -> str:
    """An id of ``prefix`` and 20 hexadecimal digits that depends on nothing but its arguments.

    >>> derive("alr", "tickets", 3) == derive("alr", "tickets", 3)
    True
    >>> derive("alr", "tickets", 3)[:4]
    'alr_'
    """
    text = "\x1f".join(str(part) for part in parts)
    return f"{prefix}_{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def bare(base: str) -> AdapterDigest:
    """What stands in place of an adapter's digest when a base is asked without any adapter.

    >>> bare("minilm"), base_asked(bare("minilm")), base_asked(AdapterDigest("sha256:00"))
    ('base:minilm', 'minilm', None)
    """
    return AdapterDigest(f"{_BARE}{base}")


def base_asked(digest: AdapterDigest) -> str | None:
    """The base that is asked without an adapter; None when the digest names an adapter."""
    return digest.removeprefix(_BARE) if digest.startswith(_BARE) else None


def is_task_name(text: str) -> bool:
    """Whether a text may name a task: a lower-case letter, then letters, digits and hyphens, at most 63 in all.

    >>> is_task_name("support-tickets"), is_task_name("Support")
    (True, False)
    """
    return TASK_NAME.fullmatch(text) is not None
