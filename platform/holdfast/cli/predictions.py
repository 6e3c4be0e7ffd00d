"""Predictions and the labels that come later."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.bootstrap import home as bootstrap_home
from holdfast.cli import show
from holdfast.cli.context import AsJson, Task, client_of
from holdfast.errors import RequestInvalid

LABEL_HELP = """What the answer should have been: a label; several as a|b (none: []); spans as JSON,
[{"field": "city", "start": 3, "end": 7}], or {"city": "Oslo"} where that text stands once."""
BATCH_ROWS = 500
"""Labels in one request; a request with a label that cannot be right is refused whole."""


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
    """Say what was right: for one capture, or for a file of them."""
    pairs = _pairs(capture, value, file)
    taken = 0
    with client_of(context) as client:
        for start in range(0, len(pairs), BATCH_ROWS):
            part = [{"request_id": c, "label": v, "source": source, "task": task} for c, v in pairs[start : start + BATCH_ROWS]]
            taken += client.give_feedback(part)
    show.line(f"{taken} labels taken; each joins its capture as soon as that is in the log")


def _pairs(capture: str | None, value: str | None, file: Path | None) -> tuple[tuple[str, str], ...]:
    if file is not None and capture is None:
        return bootstrap_home.read_labels(file)
    if file is None and capture is not None and value is not None:
        return ((capture, value),)
    raise RequestInvalid(
        place="CAPTURE LABEL", problem="either a capture and its label are needed, or --file",
        remedy="write `holdfast label TASK CAPTURE LABEL` or `holdfast label TASK --file FILE`",
    )  # fmt: skip
