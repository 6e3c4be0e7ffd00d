"""Verdicts of the gate."""

from __future__ import annotations

from fastapi import APIRouter

from holdfast.api.dependencies import HouseOf
from holdfast.api.failures import documented
from holdfast.domain.gates import Verdict
from holdfast.domain.ids import VerdictId

router = APIRouter(prefix="/verdicts", tags=["verdicts"])


@router.get("/{verdict_id}", summary="One verdict with its criteria", responses=documented(404))
def show_verdict(verdict_id: str, house: HouseOf) -> Verdict:
    """Each criterion with what was observed, its interval, its threshold and its outcome in words."""
    with house.unit_of_work() as work:
        return work.verdicts.get(VerdictId(verdict_id))
