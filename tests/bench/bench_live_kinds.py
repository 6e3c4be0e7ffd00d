"""The loop from drift to swap on a running home, for an extraction and a multi-label task of real rows.

    python tests/bench/bench_live_kinds.py [--data FOLDER] [--only NAME] [--smoke] [--write]

For each kind a home of its own is brought up (`holdfast up`: Ray Serve, gateway, API, worker, MLflow), a task is created from its contract
in `contracts/`, real rows are added, version 1 is trained, judged, promoted over REST and served. Then rows are sent over HTTP at a steady
rate, with the right answer of 60% of them given 100 to 200 events later, and the data changes (`live_worlds.py` says how). From there on
nothing is pressed: the bench looks until the new version has answered enough. It is the story of `holdfast demo` in another world.
Exit code 1 when a loop did not close. No file is written on a smoke run or when one did not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import live_worlds

from holdfast.cli.demo_report import Score, StoryReport
from holdfast.cli.demo_story import Story, StoryPlan
from holdfast.cli.demo_view import StoryView, tell
from holdfast.cli.demo_world import World
from holdfast.client import Client
from holdfast.errors import HoldfastError
from holdfast.testing.running_home import RunningHome

RESULTS = Path(__file__).parent / "results" / "live_kinds.md"
WORLDS: dict[str, tuple[Callable[[Path], World], StoryPlan]] = {
    "snips": (live_worlds.snips, StoryPlan(per_second=10.0)),
    "k8s": (live_worlds.k8s, StoryPlan(per_second=5.0, after_events=400)),
}
SMOKE_EVENTS = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A story that came to its end."""

    name: str
    kind: str
    changes: str
    report: StoryReport
    asked: dict[str, int]
    """Retrainings that the loop asked for, by how they ended."""


def live(name: str, data: Path, *, smoke: bool) -> Told:
    """Bring up a home, tell the story, end the home. Raises HoldfastError when a step does not come to pass."""
    read, plan = WORLDS[name]
    world = read(data)
    plan = replace(plan, after_events=SMOKE_EVENTS) if smoke else plan
    print(f"\n== {name}: {world.contract.kind}", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        RunningHome(Path(folder) / "home") as home,
        Client(home.url("API"), home.url("GATEWAY"), home.key) as client,
    ):
        console = Console(force_terminal=False, width=160)
        story = Story(client, StoryView(console), plan, world=world)
        report = story.run()
        tell(report, console)
        asked = Counter(r["state"] for r in client.retrainings(story.task) if r["alert_id"] is not None)
    return Told(name=name, kind=world.contract.kind, changes=world.changes, report=report, asked=dict(asked))


def table(told: Sequence[Told]) -> str:
    """Markdown, a column for each story."""
    lines = [["", *(f"{one.name}, {one.kind}" for one in told)], ["---"] * (len(told) + 1)]
    rows: dict[str, Callable[[Told], str]] = {
        "the change": lambda t: t.changes,
        "mean F1 of a row before the change": lambda t: _shown(t.report.before),
        "after it, version 1": lambda t: _shown(t.report.during),
        "after the swap": lambda t: _shown(t.report.after),
        "events from the change to the alert / to the swap": lambda t: f"{t.report.events_to_alert} / {t.report.events_to_swap}",
        "alerts before the change": lambda t: str(t.report.alerts_before_change),
        "diagnosis": lambda t: f"{t.report.diagnosis}: {t.report.sentence}",
        "retrainings that the loop asked for": lambda t: ", ".join(f"{n} {state}" for state, n in sorted(t.asked.items())),
        "requests sent / failed": lambda t: f"{t.report.requests_sent:,} / {t.report.requests_failed}",
        "captures stored, of those answered": lambda t: (
            f"{t.report.captures_stored:,} of {t.report.requests_sent - t.report.requests_failed:,}"
        ),
        "labels stored, of those sent": lambda t: f"{t.report.labels_stored:,} of {t.report.labels_sent:,}",
        "ledger": lambda t: f"{t.report.ledger_entries} entries, verified",
        "the loop closed by itself": lambda t: "yes" if t.report.closed else "no",
        "seconds of the story": lambda t: f"{t.report.seconds:.0f}",
    }
    lines += [[name, *(say(one) for one in told)] for name, say in rows.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _shown(score: Score | None) -> str:
    return "none" if score is None else f"{score.value:.3f} ({score.lower:.3f} to {score.upper:.3f}; {score.events} events)"


def write(told: Sequence[Told]) -> None:
    """The committed file."""
    words = (
        f"# The loop from drift to swap on a running home, other kinds of task\n\n`python tests/bench/bench_live_kinds.py --write` on "
        f"{datetime.now(UTC):%Y-%m-%d}, 2 cores. Rows, spans and sets are real, their order is made (`live_worlds.py`). Rung `head`; the "
        "contracts are in `tests/bench/contracts/`. Intervals hold at any number of looks, at 95%.\n\n"
    )
    RESULTS.write_text(words + table(told) + "\n", encoding="utf-8")


def main() -> int:
    """Exit code 1 when a loop did not close."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--only", default="", choices=["", *WORLDS], help="one of them")
    parser.add_argument("--smoke", action="store_true", help="end sooner after the swap")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    asked = parser.parse_args()
    told: list[Told] = []
    names = [name for name in WORLDS if asked.only in ("", name)]
    for name in names:
        try:
            told.append(live(name, asked.data, smoke=asked.smoke))
        except HoldfastError as error:
            print(f"{name}: the loop did not close: {error}", flush=True)
    print(f"\n{table(told)}", flush=True)
    closed = len(told) == len(names) and all(one.report.closed for one in told)
    if asked.write and closed and not asked.smoke:
        write(told)
    return 0 if closed else 1


if __name__ == "__main__":
    sys.exit(main())
