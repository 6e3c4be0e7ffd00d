"""`make chaos`: one part of a running home is killed at every moment of one story; the loop closes, nothing is lost or done twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from holdfast.cli.demo_story import MOMENTS, Story, StoryPlan
from holdfast.cli.demo_view import StoryView
from holdfast.client import Client
from holdfast.testing.running_home import RunningHome

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]
PARTS = dict.fromkeys(("gateway", "replica", "worker", "api", "mlflow"), MOMENTS) | {"training": ("training",)}
"""Part to the moments at which it lives and is killed."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHome]:
    with RunningHome(tmp_path_factory.mktemp("chaos") / "home") as home:
        yield home


@pytest.mark.parametrize("part", PARTS)
def test_a_part_killed_at_every_moment_costs_nothing(home: RunningHome, tmp_path: Path, part: str) -> None:
    killed: dict[str, int] = {}

    def harm(moment: str) -> None:
        if moment in PARTS[part]:
            killed[moment] = home.kill(part)

    with Client(home.url("API"), home.url("GATEWAY"), home.key) as client, (tmp_path / "story.txt").open("w") as log:
        view = StoryView(Console(file=log, force_terminal=False, width=200))
        story = Story(client, view, StoryPlan(per_second=15.0, before_events=300, after_events=300, patience_s=600.0), harm)
        report = story.run()
        automatic = [r for r in client.retrainings(story.task) if r["alert_id"] is not None and r["state"] == "promoted"]
        promoted = [p for p in client.promotions(story.task) if p["reason"] == automatic[0]["reason"]]
    print(
        f"{part}: killed {sum(killed.values())} processes at {len(killed)} moments; {report.requests_sent} requests, "
        f"{report.requests_repeated} of them repeated, {report.requests_failed} failed; {report.captures_stored} captures, "
        f"{report.labels_stored} of {report.labels_sent} labels stored; {report.seconds:.0f} s"
    )
    assert set(killed) == set(PARTS[part])
    assert min(killed.values()) >= 1, killed
    assert report.checks == dict.fromkeys(report.checks, True), (tmp_path / "story.txt").read_text()
    assert len(promoted) == 1
