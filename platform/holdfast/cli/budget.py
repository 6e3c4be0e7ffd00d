"""Monitors of the whole fleet: what they say, and where the false-alarm budget goes."""

from __future__ import annotations

from typing import Any

import typer

from holdfast.cli import show
from holdfast.cli.context import AsJson, client_of

NOBODY = "no task has a champion yet, so nothing is watched and nothing is spent; next: holdfast train TASK"


def register(group: typer.Typer) -> None:
    """Add the commands to `holdfast monitor`."""
    group.command("list")(list_monitors)
    group.command("budget")(budget)


def list_monitors(context: typer.Context, as_json: AsJson = False) -> None:
    """List what every monitor of every task says now. `suspicious` is chosen over the whole fleet; it opens no alert."""
    account = _account(context)
    lines = sorted(account["monitors"], key=lambda line: line["task"])
    if as_json:
        show.as_json(lines)
        return
    if not lines:
        show.line(NOBODY)
        return
    rows = [
        (line["task"], *_said(line["reading"]), line["log_threshold"], line["suspicious"], line["reading"].get("note")) for line in lines
    ]
    show.table(("task", "monitor", "status", "events", "log evidence", "alarm at", "suspicious", "note"), rows)
    rate = account["false_discovery_rate"]
    show.say(f"suspicious: by e-BH over all {len(lines)} monitors; of them at most {rate:.0%} are so without a change, on average")


def budget(context: typer.Context, as_json: AsJson = False) -> None:
    """Show where the fleet's budget of false alarms goes: share, threshold and spending of every monitor, most spent first."""
    account = _account(context)
    if as_json:
        show.as_json(account)
        return
    if not account["monitors"]:
        show.line(NOBODY)
        return
    columns = ("task", "monitor", "share", "per million", "alarm at", "events", "expected so far", "alarms", "closed as false")
    rows: list[tuple[show.Cell, ...]] = [
        (
            line["task"], line["reading"]["monitor"], f"{100 * line['share']:.3g}%", line["per_million_events"], line["log_threshold"],
            line["event_count"], line["spent"], line["alarm_count"], line["false_alarm_count"],
        )
        for line in account["monitors"]
    ]  # fmt: skip
    rows.append(_sum(account))
    show.table(columns, rows)
    show.say(_stated(account))


def _account(context: typer.Context) -> dict[str, Any]:
    with client_of(context) as client:
        return client.monitor_budget()


def _said(reading: dict[str, Any]) -> tuple[show.Cell, ...]:
    return (reading["monitor"], reading["status"], reading["event_count"], reading["log_evidence"])


def _sum(account: dict[str, Any]) -> tuple[show.Cell, ...]:
    share = f"{100 * sum(line['share'] for line in account['monitors']):.3g}%"
    totals = (account["event_count"], account["spent"], account["alarm_count"], account["false_alarm_count"])
    return ("all", f"{len(account['monitors'])} monitors", share, account["per_million_events"], None, *totals)


def _stated(account: dict[str, Any]) -> str:
    """The budget in words.

    >>> _stated({"false_alarms_per_million_events": None})
    'no budget for the fleet: each task keeps that of its own contract'
    """
    stated = account["false_alarms_per_million_events"]
    if stated is None:
        return "no budget for the fleet: each task keeps that of its own contract"
    return (
        f"stated: {stated:.3g} false alarms of all {account['task_count']} tasks together, on average, while the busiest reads a million"
        " events (HOLDFAST_MONITORING__FLEET_FALSE_ALARMS_PER_MILLION_EVENTS)"
    )
