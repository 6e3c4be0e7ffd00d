"""`make chaos`: a home of the profile production, its fleet harmed at moments of one story: the whole Ray head gone, a replica frozen
until Ray replaces it, a gateway killed, a replica killed in the middle of the swap."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from holdfast.cli.demo_story import Story, StoryPlan
from holdfast.cli.demo_view import StoryView
from holdfast.cli.probe import answers as is_answered
from holdfast.client import Client
from holdfast.testing.running_home import RunningHome

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[RunningHome]:
    with RunningHome(tmp_path / "home", PROFILE="production", SERVING__PROVE_S="5") as home:
        yield home


def seconds_until(condition: Callable[[], bool], what: str, within_s: float = 180.0) -> float:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within_s:
            raise AssertionError(f"{what}: not within {within_s:.0f} s")
        time.sleep(0.2)
    return time.monotonic() - began


def answers(home: RunningHome) -> bool:
    """Whether each gateway says that a replica answers it. No prediction: the story counts its captures."""
    own = home.ports["GATEWAY_OWN"]
    return all(is_answered(f"http://127.0.0.1:{port}/readyz") for port in (own, own + 1))


def pids(home: RunningHome) -> set[int]:
    """Of the replicas."""
    return {process.pid for process in home.processes("replica")}


def freeze(home: RunningHome) -> int:
    """Stop the oldest replica; its process id."""
    pid = home.processes("replica")[0].pid
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_the_loop_closes_though_head_replicas_and_gateways_are_harmed(home: RunningHome, tmp_path: Path) -> None:
    said: dict[str, str] = {}
    frozen: list[int] = []

    def harm(moment: str) -> None:
        if moment == "serving":
            old = pids(home)
            assert len(old) == 2
            home.kill("head")
            took = seconds_until(lambda: not pids(home) & old, "the old replicas end with their head")
            took += seconds_until(lambda: len(pids(home)) == 2 and answers(home), "two new replicas, and answers", 300.0)
            said[moment] = f"the Ray head gone: answers again after {took:.0f} s"
        elif moment == "before change":
            frozen.append(freeze(home))
            said[moment] = "one of two replicas frozen"
        elif moment == "judged":
            home.processes("gateway")[0].kill()
            said[moment] = "one of two gateways killed"
        elif moment == "promoted":
            home.processes("replica")[-1].kill()
            said[moment] = "a replica killed during the roll-out"

    with Client(home.url("API"), home.url("GATEWAY"), home.key) as client, (tmp_path / "story.txt").open("w") as log:
        view = StoryView(Console(file=log, force_terminal=False, width=200))
        story = Story(client, view, StoryPlan(per_second=15.0, before_events=300, after_events=300, patience_s=600.0), harm)
        report = story.run()
    replaced = seconds_until(lambda: frozen[0] not in pids(home), "Ray replaces the frozen replica")
    for moment, sentence in said.items():
        print(f"{moment}: {sentence}")
    print(
        f"{report.requests_sent} requests, {report.requests_repeated} of them repeated, {report.requests_failed} failed; "
        f"{report.seconds:.0f} s; the frozen replica was gone {replaced:.0f} s after the story at the latest"
    )
    assert report.checks == dict.fromkeys(report.checks, True), (tmp_path / "story.txt").read_text()
