"""Follow one training until it is judged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from holdfast.cli.show import notes
from holdfast.client import Client

LOOK_S = 0.5
ENDED = frozenset({"promoted", "refused", "failed", "cancelled"})


def follow_training(client: Client, retraining: dict[str, Any]) -> dict[str, Any]:
    """The retraining once it is judged or has ended; its progress is shown on stderr meanwhile."""
    console = notes()
    newest = retraining
    if console.is_terminal:
        with Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(), console=console
        ) as bar:
            shown = bar.add_task("requested", total=1.0)
            for newest in _steps(client, retraining):
                bar.update(shown, description=newest["state"], completed=_share(newest))
        return newest
    told = None
    for newest in _steps(client, retraining):
        words = f"{newest['state']} {newest['progress']:.0%}" if newest["state"] == "training" else newest["state"]
        if words != told:
            console.print(words)
        told = words
    return newest


def _steps(client: Client, retraining: dict[str, Any]) -> Iterator[dict[str, Any]]:
    newest = retraining
    while True:
        yield newest
        if newest["state"] in ENDED or (newest["state"] == "judged" and newest["verdict_id"]):
            return
        time.sleep(LOOK_S)
        newest = client.retraining(newest["retraining_id"])


def _share(retraining: dict[str, Any]) -> float:
    return float(retraining["progress"]) if retraining["state"] in ("requested", "training") else 1.0
