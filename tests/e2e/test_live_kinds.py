"""The whole loop on a real home for sets of labels and for spans, on synthetic rows (`tests/bench/bench_live_kinds.py` has real ones)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from holdfast.cli.demo_report import StoryReport
from holdfast.cli.demo_story import Story, StoryPlan
from holdfast.cli.demo_view import StoryView
from holdfast.cli.demo_world import Ticket, World, world_of
from holdfast.client import Client
from holdfast.domain.datasets import Example
from holdfast.domain.tasks import Kind
from holdfast.testing.running_home import RunningHome
from holdfast.testing.several import FIELDS, TOPICS, orders, topics

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
PAST, BEFORE, AFTER = 400, 150, 6_000
"""Rows of the first training, events before the change, and more after it than a story lasts."""
CONTRACT = """
task: {kind}-story
kind: {kind}
labels: [{labels}]
labels_open: true
metric: f1
floor: 0.5
retraining: {{rung: head, min_labels: 100, cool_down_s: 5}}
promotion: {{margin: 0.1, min_holdout_rows: 30}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHome]:
    with RunningHome(tmp_path_factory.mktemp("kinds") / "home") as home:
        yield home


def world(kind: Kind, folder: Path) -> World:
    """A topic, or a field, comes up that nobody had heard of."""
    make, labels = (orders, FIELDS) if kind == "extraction" else (topics, TOPICS)
    contract = folder / "contract.yaml"
    contract.write_text(CONTRACT.format(kind=kind, labels=", ".join(labels)))
    past, before, after = make(1, PAST), make(2, BEFORE), make(3, AFTER, changed=True)
    stream = [*_tickets(before, 0, changed=False), *_tickets(after, BEFORE, changed=True)]
    return world_of(contract, _tickets(past, 0, changed=False), stream, source="synthetic", changes="something new to name")


def _tickets(examples: Sequence[Example], first: int, *, changed: bool) -> list[Ticket]:
    return [Ticket(text=e.text, label=e.label, index=first + n, changed=changed) for n, e in enumerate(examples)]


def tell(home: RunningHome, world: World, log: Path) -> tuple[StoryReport, list[str]]:
    """The report, and the labels of the version that answers at the end."""
    with Client(home.url("API"), home.url("GATEWAY"), home.key) as client, log.open("w") as file:
        view = StoryView(Console(file=file, force_terminal=False, width=200))
        story = Story(client, view, StoryPlan(per_second=20.0, after_events=150, patience_s=300.0), world=world)
        report = story.run()
        champion = client.task(story.task)["champion"]["digest"]
        labels = next(v["labels"] for v in client.versions(story.task) if v["digest"] == champion)
    return report, labels


@pytest.mark.parametrize(("kind", "later"), [("extraction", "courier"), ("multi-label", "rewards")])
def test_the_loop_closes_by_itself_and_learns_what_is_new(home: RunningHome, tmp_path: Path, kind: Kind, later: str) -> None:
    report, labels = tell(home, world(kind, tmp_path), tmp_path / "story.txt")
    print((tmp_path / "story.txt").read_text())
    assert report.checks == dict.fromkeys(report.checks, True), (tmp_path / "story.txt").read_text()
    assert later in labels
    assert report.events_to_alert is not None
    assert report.events_to_alert < 400
