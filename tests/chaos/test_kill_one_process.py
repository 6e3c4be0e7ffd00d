"""`make chaos`: one part of a running home is killed at one moment of the story; the loop closes, nothing is lost or done twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from holdfast.cli.demo_story import MOMENTS, Story, StoryPlan
from holdfast.cli.demo_view import StoryView
from holdfast.client import Client
from holdfast.testing.running_home import RunningHome

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1500)]
PARTS = ("gateway", "replica", "worker", "api", "mlflow")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHome]:
    with RunningHome(tmp_path_factory.mktemp("chaos") / "home") as home:
        yield home


@pytest.mark.parametrize(("part", "moment"), [*((part, moment) for part in PARTS for moment in MOMENTS), ("training", "training")])
def test_a_killed_process_costs_nothing(home: RunningHome, tmp_path: Path, part: str, moment: str) -> None:
    counts = []
    with Client(home.url("API"), home.url("GATEWAY"), home.key) as client, (tmp_path / "story.txt").open("w") as log:
        view = StoryView(Console(file=log, force_terminal=False, width=200))
        plan = StoryPlan(per_second=15.0, before_events=300, after_events=300, patience_s=600.0)
        story = Story(client, view, plan, lambda name: counts.append(home.kill(part)) if name == moment else None)
        report = story.run()
        automatic = [r for r in client.retrainings(story.task) if r["alert_id"] is not None and r["state"] == "promoted"]
        promoted = [p for p in client.promotions(story.task) if p["reason"] == automatic[0]["reason"]]
    assert counts
    assert report.checks == dict.fromkeys(report.checks, True), (tmp_path / "story.txt").read_text()
    assert len(promoted) == 1
