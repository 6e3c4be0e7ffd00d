"""Predictions and the labels that come later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.bootstrap import home as bootstrap_home
from holdfast.cli import show
from holdfast.cli.context import AsJson, Task, WrongUsage, client_of, made_home
from holdfast.errors import DataInvalid, Unhealthy
from holdfast.settings import Settings

LABEL_HELP = """What the answer should have been: a label; several as a|b (none: []); spans as JSON,
[{"field": "city", "start": 3, "end": 7}], or {"city": "Oslo"} where that text stands once."""
BATCH_ROWS = 500
"""Labels in one request; a request with a label that cannot be right is refused whole."""
SHOWN = 20
"""Ids named at most."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(predict)
    app.command()(label)


def predict(
    context: typer.Context,
    task: Task,
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="One or more inputs.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Ask the served model. Every answer is captured; label it later by its id."""
    with client_of(context) as client:
        answers = client.predict_many(task, [{"text": text} for text in texts])
    if as_json:
        show.as_json(answers)
        return
    rows = [(_answer(a), a["confidence"], a["request_id"], show.short(a["adapter_digest"]), a["latency_ms"]) for a in answers]
    show.table(("answer" if any("label" not in a for a in answers) else "label", "confidence", "capture", "adapter", "ms"), rows)


def _answer(body: Mapping[str, Any]) -> str:
    """An answer of any kind in one cell."""
    if "spans" in body:
        return ", ".join(f"{span['field']}: {span['text']}" for span in body["spans"]) or "(none)"
    return ", ".join(body["labels"]) or "(none)" if "labels" in body else str(body["label"])


def label(
    context: typer.Context,
    task: Task,
    capture: Annotated[str | None, typer.Argument(metavar="[CAPTURE]", help="Id of the capture.", show_default=False)] = None,
    value: Annotated[str | None, typer.Argument(metavar="[LABEL]", help=LABEL_HELP, show_default=False)] = None,
    *,
    file: Annotated[Path | None, typer.Option("--file", help="File with the columns capture_id and label.", show_default=False)] = None,
    source: Annotated[str, typer.Option("--source", help="Who says so.")] = "person",
) -> None:
    """Say what was right: for one capture, or for a file of them.

    A label may come before its capture: it is taken, and waits. Ids that are not in the log yet are named at once; the exit code is 0.
    """
    pairs = _pairs(task, capture, value, file)
    settings = made_home(context)
    missing = _not_in_the_log(settings, task, pairs)
    taken = 0
    with client_of(context) as client:
        for start in range(0, len(pairs), BATCH_ROWS):
            part = [{"request_id": c, "label": v, "source": source, "task": task} for c, v in pairs[start : start + BATCH_ROWS]]
            taken += client.give_feedback(part)
    show.line(f"{taken} {'label' if taken == 1 else 'labels'} taken")
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        show.say(f"no capture is in the log yet of {', '.join(missing[:SHOWN])}{more}")
        show.say(f"a label waits {settings.serving.feedback_wait_s:g} s for its capture, then counts as unmatched: so ends a mistyped id")
        show.say("`holdfast status`, and holdfast_feedback_total in the gateway's /metrics, count the unmatched")


def _not_in_the_log(settings: Settings, task: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Ids without a capture so far, each once. Raises DataInvalid for the capture of another task: its label could never be stored."""
    try:
        known = bootstrap_home.tasks_of_captures(settings, [capture for capture, _ in pairs])
    except Unhealthy as error:  # the gateway takes labels without the database
        show.say(f"whether the captures are in the log was not looked up: {error.message}")
        return []
    elsewhere = next((name for name, owner in known.items() if owner != task), None)
    if elsewhere is not None:
        raise DataInvalid(
            source=f"of {task}", place=elsewhere, problem=f"this capture is of task {known[elsewhere]}",
            remedy="name the task that answered; no label of the command was taken.",
        )  # fmt: skip
    return [name for name in dict.fromkeys(capture for capture, _ in pairs) if name not in known]


def _pairs(task: str, capture: str | None, value: str | None, file: Path | None) -> tuple[tuple[str, str], ...]:
    if file is not None and capture is None:
        return bootstrap_home.read_labels(file)
    if file is None and capture is not None and value is not None:
        return ((capture, value),)
    raise WrongUsage(
        problem="A label wants a capture and what was right, or --file",
        remedy=f"write `holdfast label {task} CAPTURE LABEL` or `holdfast label {task} --file FILE`",
    )  # fmt: skip
