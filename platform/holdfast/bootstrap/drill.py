"""Composition for a drill: the database and the adapters of a home, read only, and an engine in this process."""

from __future__ import annotations

from pathlib import Path

from holdfast.backends.example_files import read_examples
from holdfast.bootstrap import for_gateway, for_replica
from holdfast.flows.drill import DrillGround
from holdfast.settings import Settings


def for_drill(settings: Settings) -> DrillGround:
    """Works whether the home runs or not."""
    replica = for_replica(settings)
    return DrillGround(unit_of_work=replica.unit_of_work, log=for_gateway(settings).log, adapters=replica.adapters, engine=replica.engine)


def read_texts(path: Path) -> tuple[str, ...]:
    """The texts of a file of examples. Raises DataInvalid."""
    return tuple(example.text for example in read_examples(path))
