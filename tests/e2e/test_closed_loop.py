"""The whole loop on a real home: once undisturbed, once with every part killed in its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from holdfast.cli.demo_report import StoryReport
from holdfast.cli.demo_story import Story, StoryPlan
from holdfast.cli.demo_view import StoryView
from holdfast.client import Client
from holdfast.testing.running_home import RunningHome

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1500)]
KILLS = {
    "before change": "gateway", "alert": "worker", "training": "training", "judged": "mlflow", "promoted": "api", "swapped": "replica",
}  # fmt: skip
"""Moment of the story to the part that is killed there."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHome]:
    with RunningHome(tmp_path_factory.mktemp("e2e") / "home") as home:
        yield home


def tell(home: RunningHome, log: Path, on_moment: Callable[[str], None] = lambda name: None) -> StoryReport:
    with Client(home.url("API"), home.url("GATEWAY"), home.key) as client, log.open("w") as file:
        view = StoryView(Console(file=file, force_terminal=False, width=200))
        return Story(client, view, StoryPlan(per_second=15.0, before_events=300, after_events=300, patience_s=600.0), on_moment).run()


def test_the_loop_closes_by_itself(home: RunningHome, tmp_path: Path) -> None:
    report = tell(home, tmp_path / "story.txt")
    assert report.checks == dict.fromkeys(report.checks, True), (tmp_path / "story.txt").read_text()
    assert report.events_to_alert is not None
    assert report.events_to_alert < 400


def test_every_part_killed_in_its_turn_ends_in_a_closed_loop(home: RunningHome, tmp_path: Path) -> None:
    killed: dict[str, int] = {}

    def harm(moment: str) -> None:
        if moment in KILLS:
            killed[KILLS[moment]] = home.kill(KILLS[moment])

    report = tell(home, tmp_path / "story.txt", harm)
    assert set(killed) == set(KILLS.values())
    assert min(killed.values()) >= 1, killed
    assert report.checks == dict.fromkeys(report.checks, True), (tmp_path / "story.txt").read_text()
