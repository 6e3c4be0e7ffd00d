"""What must be said before Evidently is imported."""

from __future__ import annotations

import os


def silence() -> None:
    """Before Evidently is imported: it would report its use to its makers."""
    os.environ.setdefault("DO_NOT_TRACK", "1")  # noqa: TID251 - read by Evidently at import, and from nowhere else
