"""The job that moves a retraining one step on."""

from __future__ import annotations

from holdfast.domain.ids import RetrainingId
from holdfast.flows import retrain
from holdfast_jobs.bench import Bench


def advance_retraining(bench: Bench, retraining_id: str) -> None:
    """One quick step under the lease; the training itself runs elsewhere. Nothing happens when another worker holds it."""
    retrain.advance(bench.house, RetrainingId(retraining_id), owner=bench.owner)
