"""A gateway with its twins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .gateway_place import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    with place.client:
        yield place
    place.buffer.close()
    place.labels.close()
