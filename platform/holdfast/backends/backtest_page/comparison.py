"""The page of a comparison: both loops over the history, and every decision of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.backends.backtest_page.replay import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Lines,
    dates,
    document,
    grid,
    safe,
    scales,
    table,
    write,
)
from holdfast.domain.backtest import date_form
from holdfast.domain.comparison import Comparison, Decision
from holdfast.domain.tasks import titled

LANE = 14
"""Height of the lane of one policy's decisions, below the plot."""
SIGNS = {
    "alert": ("alert", "!"), "diagnosis": ("alert", "?"), "retraining requested": ("train", "◆"), "retraining held": ("refused", "◇"),
    "verdict": ("train", "✓"), "promotion": ("promoted", "▲"),
}  # fmt: skip


def write_comparison(result: Comparison, path: Path, *, title: str) -> None:
    """Write the page, whole or not at all. Raises StorageRefused."""
    write(comparison_page(result, title=title), path)


def comparison_page(result: Comparison, *, title: str) -> str:
    """The page as text."""
    a, b, d = result.a, result.b, result.difference
    metric = titled(result.replays[0].totals.metric)
    cards = [
        ("A", f"{a.accuracy.mean:.3f}"), ("B", f"{b.accuracy.mean:.3f}"), ("B minus A", f"{d.mean:+.3f}"),
        ("95% interval", f"{d.lower:+.3f} to {d.upper:+.3f}"), ("retrainings A, B", f"{a.retraining_count}, {b.retraining_count}"),
    ]  # fmt: skip
    facts = [f"{metric} of answers. A is {a.policy}, B is {b.policy}.", result.summary]
    body = [f'<div class="figure">{_figure(result)}</div>', *_tables(result, metric)]
    return document(f"Two policies on {title}", facts, cards, body)


def _figure(result: Comparison) -> str:
    a, b = (replay.periods for replay in result.replays)
    x, y, low, high = scales([*a, *b])
    lines: Lines = [
        ("bound", "retrained on all labels", a, "accuracy_bound"), ("loop", "the loop under A", a, "accuracy_loop"),
        ("second", "the loop under B", b, "accuracy_loop"),
    ]  # fmt: skip
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 2 * LANE}" role="img" aria-label="both policies over the history">']
    parts += grid(y, low, high) + dates(a, x)
    at = LEFT
    for name, words, periods, attribute in lines:
        points = " ".join(f"{x(p.first_index + p.events / 2):.1f},{y(getattr(p, attribute)):.1f}" for p in periods)
        parts.append(f'<polyline class="arm {name}" points="{points}"><title>{words}</title></polyline>')
        parts.append(f'<line class="key {name}" x1="{at}" x2="{at + 26}" y1="16" y2="16"/><text x="{at + 32}" y="20">{words}</text>')
        at += 60 + 7 * len(words)
    parts.append(f'<text x="{LEFT}" y="38">below: ! alert, ? diagnosis, ◆ retraining asked, ◇ held, ✓ verdict, ▲ promotion</text>')
    for lane, name in enumerate("AB"):
        floor = HEIGHT - BOTTOM // 2 + 8 + LANE * (lane + 1)
        parts.append(f'<text x="{LEFT - 20}" y="{floor}">{name}</text>')
        for decision in (p.a if name == "A" else p.b for p in result.decisions):
            if decision is not None:
                parts.append(_mark(decision, x(decision.event_index), floor))
    return "".join([*parts, "</svg>"])


def _mark(decision: Decision, at: float, floor: int) -> str:
    shape, sign = SIGNS[decision.kind]
    told = f"<title>{safe(f'{decision.kind} at event {decision.event_index}: {decision.said}')}</title>"
    return f'<text class="{shape}" x="{min(at, WIDTH - RIGHT):.1f}" y="{floor}">{sign}{told}</text>'


def _tables(result: Comparison, metric: str) -> list[str]:
    form = date_form(result.replays[0].periods)

    def cells(decision: Decision | None) -> tuple[object, ...]:
        return ("–", "–", "–") if decision is None else (f"{decision.at:{form}}", decision.event_index, decision.said)

    decided = [(p.kind, *cells(p.a), *cells(p.b), p.words) for p in result.decisions]
    arms: Sequence[Sequence[object]] = [
        (name, arm.policy, f"{arm.accuracy.mean:.3f}", f"{arm.accuracy.lower:.3f} to {arm.accuracy.upper:.3f}", arm.alert_count,
         arm.retraining_count, arm.promotion_count, arm.train_seconds, arm.cpu_seconds)
        for name, arm in (("A", result.a), ("B", result.b))
    ]  # fmt: skip
    head = ("", "policy", metric.lower(), "95% interval", "alerts", "retrainings", "promotions", "training s", "CPU s of the loop")
    return [
        table("Figures", head, arms),
        table("Decisions", ("decision", "A at", "A event", "A said", "B at", "B event", "B said", "B beside A"), decided),
    ]
