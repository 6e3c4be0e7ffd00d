"""How a story is shown while it runs: a live list of its steps with a curve of quality; off a terminal, one line per step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from holdfast.cli.demo_report import Score, StoryReport
from holdfast.cli.demo_traffic import Answered

WINDOW = 60
"""Events of one point of the curve."""
BARS = "▁▂▃▄▅▆▇█"
PLAIN_EVERY_S = 10.0
StepState = Literal["to come", "now", "done"]


@dataclass(slots=True)
class Step:
    """One line of the list."""

    name: str
    state: StepState = "to come"
    note: str = ""
    began: float = 0.0
    seconds: float = 0.0


@dataclass(slots=True)
class StoryView:
    """Told by the story; draws on a console. Used from one thread."""

    console: Console
    steps: dict[str, Step] = field(default_factory=dict)
    traffic_line: str = ""
    _live: Live | None = None
    _curve: str = ""
    _told: float = 0.0

    def open(self, names: Sequence[str]) -> None:
        """Begin with every step to come."""
        self.steps = {name: Step(name) for name in names}
        if self.console.is_terminal:
            self._live = Live(self._picture(), console=self.console, refresh_per_second=4)
            self._live.start()

    def close(self) -> None:
        """Leave the last picture standing."""
        if self._live is not None:
            self._live.update(self._picture())
            self._live.stop()
            self._live = None

    def begin(self, name: str, note: str = "") -> None:
        """A step is under way."""
        step = self.steps[name]
        step.state, step.note, step.began = "now", note, time.monotonic()
        self._draw()

    def done(self, name: str, note: str = "") -> None:
        """A step has ended."""
        step = self.steps[name]
        if step.state == "done":
            return
        step.seconds = time.monotonic() - step.began if step.began else 0.0
        step.state, step.note = "done", note or step.note
        if self._live is None:
            self.console.print(f"{name}: {step.note or 'done'} ({step.seconds:.0f} s)", markup=False, highlight=False, soft_wrap=True)
        self._draw()

    def note(self, name: str, note: str) -> None:
        """Something to say of a step that is under way."""
        self.steps[name].note = note
        self._draw()

    def traffic(self, answered: Sequence[Answered], failed: int) -> None:
        """The state of the traffic."""
        recent = answered[-WINDOW:]
        if not recent:
            return
        share = sum(a.score for a in recent) / len(recent)
        changed = sum(a.ticket.changed for a in answered)
        self._curve = curve(answered)
        self.traffic_line = (
            f"{len(answered)} answered ({changed} since the change), {failed} failed; quality of the last {len(recent)}: {share:.0%}; "
            f"answered by {recent[-1].adapter_digest[7:19]}"
        )
        self._draw()
        if self._live is None and time.monotonic() - self._told > PLAIN_EVERY_S:
            self._told = time.monotonic()
            self.console.print(f"  {self.traffic_line}", markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._picture())

    def _picture(self) -> Group:
        table = Table.grid(padding=(0, 2))
        signs = {"to come": "[dim]·[/]", "now": "[yellow]▸[/]", "done": "[green]✓[/]"}
        for step in self.steps.values():
            seconds = step.seconds if step.state == "done" else time.monotonic() - step.began if step.state == "now" else 0.0
            colour = "dim" if step.state == "to come" else "bold" if step.state == "now" else "default"
            table.add_row(signs[step.state], Text(step.name, style=colour), f"{seconds:.0f} s" if seconds >= 1 else "", Text(step.note))
        return Group(table, Text(f"\n{self._curve}"), Text(self.traffic_line))


def curve(answered: Sequence[Answered]) -> str:
    """Quality over the traffic, a bar per 60 events from 40 % to 100 %; `|` stands where the change and each swap began."""
    parts: list[str] = []
    for start in range(0, len(answered) - WINDOW + 1, WINDOW):
        window = answered[start : start + WINDOW]
        previous = answered[start - 1] if start else window[0]
        if any((a.ticket.changed, a.adapter_digest) != (previous.ticket.changed, previous.adapter_digest) for a in window[:1]):
            parts.append("|")
        share = sum(a.score for a in window) / len(window)
        parts.append(BARS[max(0, min(len(BARS) - 1, int((share - 0.4) / 0.6 * len(BARS))))])
    return f"quality {''.join(parts[-100:])}" if parts else ""


def tell(report: StoryReport, console: Console) -> None:
    """Print the result."""
    table = Table(
        "", "mean F1" if report.metric == "f1" else report.metric, "95 % interval", "events", title="The story", title_justify="left"
    )
    for name, score in (("before the change", report.before), ("after it, version 1", report.during), ("after the swap", report.after)):
        table.add_row(name, *_cells(score))
    console.print(table)
    lines = [
        f"from the change to the alert: {_count(report.events_to_alert)} events; to the swap: {_count(report.events_to_swap)} events",
        f"diagnosis: {report.diagnosis}. {report.sentence}",
        f"requests: {report.requests_sent} sent, {report.requests_repeated} needed a second try, {report.requests_failed} failed",
        f"captures: {report.requests_sent - report.requests_failed} answered, {report.captures_stored} stored",
        f"labels: {report.labels_sent} sent, {report.labels_stored} stored; ledger: {report.ledger_entries} entries verified",
    ]
    lines += [f"version {v.number} ({v.rung}, {v.digest[7:19]}): answered {v.answered}" for v in report.versions]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for name, holds in report.checks.items():
        console.print(f"[{'green' if holds else 'red'}]{'yes' if holds else 'NO '}[/]  {name}", highlight=False)
    verdict = "[bold green]The loop closed by itself[/]" if report.closed else "[bold red]The loop did not close[/]"
    console.print(f"{verdict}, after {report.seconds:.0f} s.", highlight=False)


def _cells(score: Score | None) -> tuple[str, str, str]:
    return ("–", "–", "0") if score is None else (f"{score.value:.3f}", f"{score.lower:.3f} to {score.upper:.3f}", str(score.events))


def _count(value: int | None) -> str:
    return "no" if value is None else str(value)
