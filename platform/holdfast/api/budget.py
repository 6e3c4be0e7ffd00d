"""Budget: where the fleet's false alarms go, and what every monitor of every task says."""

from __future__ import annotations

from fastapi import APIRouter

from holdfast.api.dependencies import HouseOf
from holdfast.domain.fleet_budget import FleetAccount
from holdfast.flows.account import fleet_account

router = APIRouter(prefix="/monitors", tags=["monitors"])


@router.get("/budget", summary="The fleet's budget of false alarms, and every monitor with its reading, share and spending")
def show_budget(house: HouseOf) -> FleetAccount:
    """Those that spent most first. Tasks without a champion have no monitor, hence no share."""
    return fleet_account(house)
