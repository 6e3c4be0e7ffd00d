"""The loop by hand: train, retrain, evaluate, promote, rollback, alerts, monitor check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from holdfast.cli import budget, show
from holdfast.cli.context import AsJson, Task, client_of
from holdfast.cli.training import follow_training
from holdfast.client import Client
from holdfast.errors import GateRefused, NotFound, RequestInvalid, TrainingFailed

Reason = Annotated[str, typer.Option("--reason", help="Why; it is written into the ledger.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is judged, with progress on stderr.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (train, retrain, evaluate, promote, rollback, alerts):
        app.command()(command)
    group = typer.Typer(no_args_is_help=True, help="Monitors of the running traffic.", rich_markup_mode=None)
    group.callback()(_monitors)
    group.command("check")(check)
    budget.register(group)
    app.add_typer(group, name="monitor")


def train(context: typer.Context, task: Task, reason: Reason = "first training", wait: Wait = True, as_json: AsJson = False) -> None:
    """Train on the newest data set and wait for the verdict. Exit code 4 when the gate refuses."""
    _train(context, task, reason=reason, wait=wait, as_json=as_json)


def retrain(
    context: typer.Context,
    task: Task,
    reason: Reason = "asked for by hand",
    wait: Wait = False,
    *,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also while an alert says that the inputs come broken.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask for a retraining on the newest data set and the labelled captures. Exit code 4 while the inputs come broken."""
    _train(context, task, reason=reason, wait=wait, anyway=anyway, as_json=as_json)


def evaluate(context: typer.Context, task: Task, as_json: AsJson = False) -> None:
    """Show the newest verdict: every criterion, with what it was decided from. Exit code 4 when it does not pass."""
    with client_of(context) as client:
        verdict = _newest_verdict(client, task)
    if as_json:
        show.as_json(verdict)
    else:
        _print_verdict(verdict)
    if verdict["outcome"] != "pass":
        raise typer.Exit(4)


def promote(
    context: typer.Context,
    task: Task,
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="Number or digest; the newest judged when absent.")] = None,
    *,
    reason: Reason = "by hand",
    generation: Annotated[int | None, typer.Option("--generation", help="Refuse when the task is not at this generation.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a version champion. Only one that passed its gate; exit code 4 otherwise."""
    with client_of(context) as client:
        digest = digest_of_version(client, task, version)
        made = client.promote(task, adapter_digest=digest, reason=reason, expected_generation=generation)
    _print_promotion(made, as_json)


def rollback(
    context: typer.Context,
    task: Task,
    reason: Reason = "by hand",
    generation: Annotated[int | None, typer.Option("--generation", help="Refuse when the task is not at this generation.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the previous champion champion again. It is still loaded, so this takes effect at once."""
    with client_of(context) as client:
        made = client.roll_back(task, reason=reason, expected_generation=generation)
    _print_promotion(made, as_json)


def alerts(
    context: typer.Context,
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="Only of this task, closed ones too.")] = None,
    as_json: AsJson = False,
) -> None:
    """List alerts with their diagnosis: every open one, or all of a task."""
    with client_of(context) as client:
        found = client.alerts(task)
    if as_json:
        show.as_json(found)
        return
    rows = [
        (
            a["task"],
            a["state"],
            show.ago(a["opened_at"]),
            a["diagnosis"]["cause"],
            a["diagnosis"]["action"],
            a["diagnosis"]["sentence"],
            a["alert_id"],
        )
        for a in found
    ]
    show.table(("task", "state", "opened", "cause", "action", "why", "alert"), rows)
    for alert in found if task else []:
        _print_evidence(alert)


def _print_evidence(alert: Mapping[str, Any]) -> None:
    """What moved, and the novel inputs in groups, of one alert."""
    found = alert["diagnosis"]
    changes = [
        (c["name"], f"{c['before']:.0%}", f"{c['now']:.0%}", f"{c['lower']:+.0%} to {c['upper']:+.0%}") for c in found["changes"][:8]
    ]
    if changes:
        show.table((f"share ({alert['alert_id']})", "before", "now", "difference, 98%"), changes)
    groups = [(str(g["row_count"]), ", ".join(g["terms"]), " / ".join(g["examples"])) for g in found["groups"][:3]]
    if groups:
        show.table((f"novel inputs ({alert['alert_id']})", "words", "examples"), groups)


def _monitors() -> None:
    """Monitors of the running traffic."""


def check(context: typer.Context, task: Task, as_json: AsJson = False) -> None:
    """Show what the monitors say now, with the false-alarm rate they keep. Exit code 1 when one alarms."""
    with client_of(context) as client:
        readings = client.monitors(task)
        since = {r["onset_seq"]: _answered_at(client, task, r["onset_seq"]) for r in readings if r["onset_seq"]}
    if as_json:
        show.as_json(readings)
    elif not readings:
        show.line("not enough data: the monitors have read nothing yet")
    else:
        rows = [
            (r["monitor"], r["status"], r["log_evidence"], r["log_threshold"], r["event_count"], since.get(r["onset_seq"]), r["note"])
            for r in readings
        ]
        show.table(("monitor", "status", "log evidence", "alarm at", "events", "change since about", "what it could have seen"), rows)
    if any(reading["status"] == "alarm" for reading in readings):
        raise typer.Exit(1)


def _answered_at(client: Client, task: str, seq: int) -> str | None:
    """When the capture at a position of the home's log was answered: positions count every task, so they say nothing to a person."""
    found = client.captures(task, after=seq - 1, limit=1)
    return show.ago(found[0]["captured_at"]) if found else None


def _train(context: typer.Context, task: str, *, reason: str, wait: bool, as_json: bool, anyway: bool = False) -> None:
    with client_of(context) as client:
        retraining = client.request_retraining(task, reason=reason, anyway=anyway)
        if wait:
            retraining = follow_training(client, retraining)
        verdict = client.verdict(retraining["verdict_id"]) if retraining["verdict_id"] else None
    if as_json:
        show.as_json({"retraining": retraining, "verdict": verdict})
    elif verdict is not None:
        _print_verdict(verdict)
    else:
        show.line(f"retraining {retraining['retraining_id']} is {retraining['state']}")
    if retraining["state"] in ("failed", "cancelled"):
        raise TrainingFailed(key=retraining["retraining_id"], reason=retraining["error"] or retraining["state"], log="`holdfast status`")
    if verdict is not None and verdict["outcome"] != "pass":
        raise typer.Exit(4)


def _print_verdict(verdict: dict[str, Any]) -> None:
    show.line(f"adapter {show.short(verdict['candidate'])}: {verdict['outcome']}")
    rows = [
        (c["name"], c["outcome"], c["observed"], c["lower"], c["upper"], c["threshold"], c["row_count"], c["reason"])
        for c in verdict["criteria"]
    ]
    show.table(("criterion", "outcome", "observed", "lower", "upper", "threshold", "rows", "why"), rows)


def _print_promotion(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show.as_json(made)
        return
    name, digest = f"{made['kind']} {made['promotion_id']}", show.short(made["digest"])
    show.line(f"{name}: {digest} is champion of {made['task']} at generation {made['generation']}")


def _newest_verdict(client: Client, task: str) -> dict[str, Any]:
    for retraining in client.retrainings(task):
        if retraining["verdict_id"]:
            return client.verdict(retraining["verdict_id"])
    raise NotFound(kind="verdict of task", name=task)


def digest_of_version(client: Client, task: str, version: str | None) -> str:
    """The digest of a version named by its number or the beginning of its digest; absent: the newest that was judged."""
    if version is None:
        candidates = [r["candidate_digest"] for r in client.retrainings(task) if r["verdict_id"]]
        if not candidates:
            raise GateRefused(digest="(none)", task=task, reason="no version was judged yet", remedy=f"run `holdfast train {task}`")
        return str(candidates[0])
    versions = client.versions(task)
    wanted = version.removeprefix("v").removeprefix("sha256:")
    found = [v["digest"] for v in versions if str(v["number"]) == wanted] or [
        v["digest"] for v in versions if len(wanted) >= 6 and v["digest"].removeprefix("sha256:").startswith(wanted)
    ]
    if len(found) > 1:
        raise RequestInvalid(place="VERSION", problem=f"{version} names {len(found)} versions", remedy="give more digits")
    if not found:
        raise NotFound(kind="version", name=version)
    return str(found[0])
