"""Reviews by hand: ask for labels, take the rows away as a table, bring them back, see what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli import show
from holdfast.cli.context import AsJson, Task, client_of
from holdfast.client import Client, Json
from holdfast.errors import DataInvalid, NotFound, StorageRefused

Review = Annotated[str | None, typer.Option("--review", help="Id of the review; the open one when absent.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Requests for labels, and what their answers say.", rich_markup_mode=None)
    group.callback()(_reviews)
    group.command("list")(list_reviews)
    group.command("ask")(ask)
    group.command("export")(export)
    group.command("import")(bring)
    group.command("status")(status)
    app.add_typer(group, name="review")


def _reviews() -> None:
    """Requests for labels, and what their answers say."""


def list_reviews(context: typer.Context, task: Task, as_json: AsJson = False) -> None:
    """List the reviews of a task, newest first."""
    with client_of(context) as client:
        found = client.reviews(task)
    if as_json:
        show.as_json(found)
        return
    rows = [
        (r["request_id"], r["state"], r["asked_by"], show.ago(r["asked_at"]), r["answered_count"], r["row_count"], r["evidence"]["words"])
        for r in found
    ]
    show.table(("review", "state", "asked by", "asked", "answered", "rows", "what the answers say"), rows)


def ask(
    context: typer.Context,
    task: Task,
    rows: Annotated[int, typer.Option("--rows", help="Captures to label.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Ask for labels on the change of the open alert, or on the newest traffic. Label them in the console, or with export and import."""
    with client_of(context) as client:
        made = client.ask_review(task, row_count=rows)
    _print(made, as_json)


def export(
    context: typer.Context,
    task: Task,
    review: Review = None,
    *,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write; stdout when absent.", show_default=False)] = None,
    with_answers: Annotated[bool, typer.Option("--show", help="Also what the model answered; who sees it tends to agree.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the rows that wait as CSV; fill the column `label` and bring it back."""
    with client_of(context) as client:
        request_id = _of(client, task, review)["request_id"]
        table = client.review_table(request_id, show=with_answers)
    if output is not None:
        try:
            output.write_text(table, encoding="utf-8")
        except OSError as error:
            raise StorageRefused(place=output, reason=error.strerror) from None
    if as_json:
        show.as_json({"request_id": request_id, "output": str(output) if output else None, "table": None if output else table})
    elif output is None:
        show.line(table.rstrip("\n"))
    else:
        show.line(f"review {request_id}: its open rows are in {output}")


def bring(
    context: typer.Context,
    task: Task,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV with the columns capture_id and label.", show_default=False)],
    review: Review = None,
    as_json: AsJson = False,
) -> None:
    """Take the labels of a filled-in CSV: all of them or, where a line cannot be used, none."""
    try:
        table = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataInvalid(source=str(file), problem=error.strerror, place="the file", remedy="name a file that can be read") from None
    except UnicodeDecodeError as error:
        remedy = "save it as CSV in UTF-8"
        raise DataInvalid(source=str(file), problem="it is not UTF-8", place=f"byte {error.start}", remedy=remedy) from None
    with client_of(context) as client:
        taken = client.give_review_table(_of(client, task, review)["request_id"], table)
    if as_json:
        show.as_json(taken)
        return
    show.line(f"{taken['answer_count']} labels taken")
    _print(taken["review"], False)


def status(context: typer.Context, task: Task, review: Review = None, as_json: AsJson = False) -> None:
    """Show how a review stands and what its answers say; the newest one when none is open."""
    with client_of(context) as client:
        found = _of(client, task, review, closed=True)
    _print(found, as_json)


def _of(client: Client, task: str, review: str | None, *, closed: bool = False) -> Json:
    """The review that is meant. Raises NotFound."""
    found = client.reviews(task)
    if review is not None:
        found = [r for r in found if r["request_id"] == review]
    elif not closed or any(r["state"] == "open" for r in found):
        found = [r for r in found if r["state"] == "open"]
    if not found:
        raise ReviewMissing(kind="review" if review else "open review of task", name=review or task, task=task)
    return found[0]


def _print(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show.as_json(found)
        return
    show.line(
        f"review {found['request_id']} is {found['state']}: {found['answered_count']} of {found['row_count']} rows answered, "
        f"{found['skipped_count']} skipped"
    )
    show.line(found["evidence"]["words"])
    if found["closed_because"]:
        show.line(f"closed: {found['closed_because']}")


class ReviewMissing(NotFound):
    """There is no {kind} {name!r}.

    Mend: see what there is with `holdfast review list {task}`, or ask for labels with `holdfast review ask {task}`.
    """
