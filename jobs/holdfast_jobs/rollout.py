"""Jobs that make what is published follow what was decided."""

from __future__ import annotations

from holdfast.flows import roll_out
from holdfast_jobs.bench import Bench


def reconcile_fleet(bench: Bench) -> None:
    """Point the routing table at every assigned version that the replicas hold and proved."""
    roll_out.roll_out(bench.house, silence_s=bench.settings.loop.replica_silence_s)


def mirror_registry(bench: Bench) -> None:
    """Put the aliases in MLflow where the database says they are."""
    roll_out.mirror(bench.house)
