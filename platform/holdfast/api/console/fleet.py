"""The fleet page: which task is in trouble, why, what the loop does about it, and what to press."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from holdfast.api.console.plots import sparkline
from holdfast.api.console.render import page
from holdfast.api.console.sentence import fleet_sentence
from holdfast.api.dependencies import HouseOf, SettingsOf
from holdfast.api.standing import URGENCY, Standing, TaskFacts, duration, facts_of, standing_of
from holdfast.flows.account import fleet_account

router = APIRouter()
SPENDERS_SHOWN = 5
"""Monitors in the table of the budget, besides the suspicious ones; `holdfast monitor budget` lists all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """One task on the fleet page."""

    task: str
    facts: TaskFacts
    standing: Standing
    spark: Markup
    labels: str
    href: str


@router.get("/")
def show_fleet(request: Request, house: HouseOf, settings: SettingsOf) -> HTMLResponse:
    """Rows in order of urgency, those with an alert first, then of name."""
    with house.unit_of_work() as work:
        names = [contract.task for contract in work.contracts.all()]
    now, silence_s = house.clock(), settings.loop.replica_silence_s
    found = [(facts, standing_of(facts, now, silence_s=silence_s)) for facts in (facts_of(house, name) for name in names)]
    found.sort(key=lambda item: (URGENCY.index(item[1].state), not item[0].open_alerts, item[0].contract.task))
    sentence = fleet_sentence(found, now, watch_s=settings.loop.watch_s, silence_s=silence_s)
    rows, account = [_row(facts, standing, now) for facts, standing in found], fleet_account(house)
    spenders = [line for i, line in enumerate(account.monitors) if line.suspicious or i < SPENDERS_SHOWN]
    return page("fleet.html", request, sentence=sentence, rows=rows, account=account, spenders=spenders)


def _row(facts: TaskFacts, standing: Standing, now: datetime) -> FleetRow:
    return FleetRow(
        task=facts.contract.task,
        facts=facts,
        standing=standing,
        spark=sparkline(facts.labelled.points, facts.contract.floor, facts.contract.metric),
        labels=labels_words(facts, now),
        href=f"/tasks/{facts.contract.task}#{anchor(standing)}",
    )


def labels_words(facts: TaskFacts, now: datetime) -> str:
    """How many labels stand behind the quality now, and how old the newest is."""
    score, newest = facts.quality.overall, facts.labelled.newest_label_at
    count = score.row_count if score else 0
    if newest is None:
        return "no label yet"
    age = duration((now - newest).total_seconds())
    return f"{count} labels, newest {age} old" if count else f"none on this version, newest {age} old"


def anchor(standing: Standing) -> str:
    """The part of the task page where the deed is done."""
    if standing.state == "starting":
        return "retrainings"
    places = {"promote": "versions", "roll back": "versions", "retrain": "retrainings", "label": "captures", "bring data": "data"}
    return places.get(standing.deed, "monitors")
