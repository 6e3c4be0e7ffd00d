"""Latency at a load that the servers bear: an open loop at 60% of what each gave at most, capture on and off at one rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
from tests.bench.http_load import Load, open_loop, request_of

SHARE = 0.6


def steady(
    ports: Mapping[str, int], most: Mapping[str, float], *, tasks: int, lines: Sequence[str], key: str, rounds: int, seconds: float
) -> list[str]:
    """The table. ``ports`` and ``most`` (requests per second at most) by arm: `holdfast`, `capture off`, `bare`; in turns."""
    requests = [request_of(f"/v1/tasks/task-{n % tasks}/predict", {"text": line}, key) for n, line in enumerate(lines)]
    rates = {arm: SHARE * most[arm] for arm in ports} | {"holdfast": SHARE * most["capture off"]}
    seen: dict[str, list[Load]] = {arm: [] for arm in ports}
    for turn in range(rounds):
        for arm in ports if turn % 2 else reversed(list(ports)):
            seen[arm].append(open_loop(ports[arm], requests, rate=rates[arm], seconds=seconds, seed=turn))
    rows = ["| arm | offered requests/s | p50 ms | p99 ms | failed of sent |", "|---|---|---|---|---|"]
    for arm, loads in seen.items():
        p50, p99 = (median(load.percentile(share) for load in loads) for share in (50, 99))
        sent = sum(len(load.latencies_ms) + load.failed for load in loads)
        rows.append(f"| {arm} | {rates[arm]:.0f} | {p50:.1f} | {p99:.1f} | {sum(load.failed for load in loads)} of {sent} |")
    changes = ", ".join(f"p{share} {_change(seen['holdfast'], seen['capture off'], share)}" for share in (50, 99))
    title = (
        f"At {SHARE:.0%} of the most, {tasks} adapters: open loop, Poisson arrivals, {rounds} rounds of {seconds:g} s, medians of rounds."
    )
    return [title, "", *rows, "", f"Capture on over off, same arrivals: {changes}.", ""]


def _change(on: Sequence[Load], off: Sequence[Load], share: float) -> str:
    """Mean change in percent over rounds, and its 95% bootstrap interval."""
    changes = np.array([100 * (a.percentile(share) / b.percentile(share) - 1) for a, b in zip(on, off, strict=True)])
    drawn = np.random.default_rng(0).choice(changes, (4_000, len(changes))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{changes.mean():+.1f}% ({low:+.1f} to {high:+.1f})"
