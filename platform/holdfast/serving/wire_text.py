"""The text of an answer on the way from replica to gateway: canonical, and behind a NUL the confidence of each of its parts.

It goes no further: records and spool hold the canonical text alone, in which no NUL can stand (JSON writes it otherwise).

>>> sent = with_parts('["auth","net"]', (0.98, 0.71))
>>> parted(sent)
('["auth","net"]', (0.98, 0.71))
>>> parted(with_parts("refund", ())), parted("a single label\\0whatever it is")[1]
(('refund', ()), ())
"""

from __future__ import annotations

from collections.abc import Sequence

MARK = "\0"
DIGITS = 6


def with_parts(value: str, parts: Sequence[float]) -> str:
    """What a replica sends; without parts the canonical text itself."""
    return value + MARK + " ".join(f"{part:.{DIGITS}g}" for part in parts) if parts else value


def parted(sent: str) -> tuple[str, tuple[float, ...]]:
    """The canonical text, and the confidence of each label of a set or span of an extraction, in their order; none of a single label."""
    value, mark, parts = sent.partition(MARK)
    if not mark or value[:1] not in ("[", "{"):
        return sent, ()
    return value, tuple(float(part) for part in parts.split())
