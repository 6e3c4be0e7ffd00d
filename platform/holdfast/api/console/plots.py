"""Plots as inline SVG, made on the server. Colours come from the style sheet by class, so that they follow the light or dark page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup, escape

from holdfast.api.series import WindowPoint
from holdfast.domain.tasks import Metric, TaskContract, titled

SPARK = (120, 28)
PLOT = (920, 250)
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 26, 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Something that happened at an instant."""

    at: datetime
    kind: str
    """`promotion`, `rollback` or `alert`: the class of its line."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that went on for a while, such as a retraining."""

    begin: datetime
    end: datetime
    text: str


@dataclass(frozen=True, slots=True)
class _Scale:
    """Instants and shares to pixels. Shares below ``least`` are cut off at the bottom."""

    begin: datetime
    end: datetime
    least: float

    def x(self, at: datetime) -> float:
        span = (self.end - self.begin).total_seconds() or 1.0
        share = (at - self.begin).total_seconds() / span
        return LEFT + min(max(share, 0.0), 1.0) * (PLOT[0] - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (max(value, self.least) - self.least) / (1.0 - self.least)
        return PLOT[1] - BOTTOM - share * (PLOT[1] - TOP - BOTTOM)


def sparkline(points: Sequence[WindowPoint], floor: float, metric: Metric) -> Markup:
    """The metric over time, small, with the floor as a broken line; empty when there is nothing to show."""
    if len(points) < 2:
        return Markup("")
    width, height = SPARK
    least = min(0.5, floor, *(p.value for p in points))
    xs = [2 + i * (width - 6) / (len(points) - 1) for i in range(len(points))]
    ys = [height - 3 - (p.value - least) / (1 - least or 1) * (height - 6) for p in points]
    floor_y = height - 3 - (floor - least) / (1 - least or 1) * (height - 6)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    text = f"{titled(metric)} from {points[0].value:.0%} to {points[-1].value:.0%} over {len(points)} windows; floor {floor:.0%}"
    return Markup(
        f'<svg class="spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{text}">'
        f'<title>{text}</title><line class="floor" x1="0" x2="{width}" y1="{floor_y:.1f}" y2="{floor_y:.1f}"/>'
        f'<polyline class="line" points="{line}"/><circle class="dot" cx="{xs[-1]:.1f}" cy="{ys[-1]:.1f}" r="2.4"/></svg>'
    )


def score_plot(points: Sequence[WindowPoint], contract: TaskContract, marks: Sequence[Mark], spans: Sequence[Span] = ()) -> Markup:
    """The contract's metric per window with its band, the floor, and what happened meanwhile; empty when there is no window."""
    if not points:
        return Markup("")
    floor = contract.floor
    scale = _scale(points, floor)
    inside = [m for m in marks if scale.begin <= m.at <= scale.end]
    over = [s for s in spans if s.end >= scale.begin and s.begin <= scale.end]
    width, height = PLOT
    last = points[-1]
    interval = f"({last.lower:.0%} to {last.upper:.0%})"
    text = f"{titled(contract.metric)} in {len(points)} windows, now {last.value:.0%} {interval}; floor {floor:.0%}"
    parts = [_axes(scale), *(_span(scale, s) for s in over), _band(scale, points), _floor(scale, floor), *_marks(scale, inside)]
    return Markup(
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{text}"><title>{text}</title>{"".join(parts)}</svg>'
    )


def _scale(points: Sequence[WindowPoint], floor: float) -> _Scale:
    begin, end = points[0].mid_at, points[-1].last_at
    if end - begin < timedelta(seconds=1):
        begin, end = points[0].first_at - timedelta(seconds=1), end + timedelta(seconds=1)
    lowest = min(floor, *(p.lower for p in points), *(p.value for p in points))
    return _Scale(begin, end, max(0.0, int(lowest * 10 - 0.5) / 10))


def _axes(scale: _Scale) -> str:
    parts, width = [], PLOT[0]
    step = 0.1 if scale.least >= 0.45 else 0.2
    for i in range(20):
        value = 1.0 - i * step
        if value < scale.least - 1e-9:
            break
        y = scale.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.0%}</text>')
    return "".join([*parts, *_instants(scale)])


def _instants(scale: _Scale) -> list[str]:
    """Up to six instants below the plot, in a form in which they differ; one that reads like the one before it is left out."""
    span = scale.end - scale.begin
    forms = {timedelta(minutes=20): "%H:%M:%S", timedelta(days=1): "%H:%M", timedelta(days=6): "%d %b %H:%M"}
    form = next((form for limit, form in forms.items() if span < limit), "%d %b")
    parts, before = [], ""
    for i in range(6):
        at = scale.begin + span * (i / 5)
        anchor = "start" if i == 0 else "end" if i == 5 else "middle"
        if f"{at:{form}}" != before:
            before = f"{at:{form}}"
            parts.append(f'<text class="tick" x="{scale.x(at):.1f}" y="{PLOT[1] - 8}" text-anchor="{anchor}">{before}</text>')
    return parts


def _band(scale: _Scale, points: Sequence[WindowPoint]) -> str:
    upper = [f"{scale.x(p.mid_at):.1f},{scale.y(p.upper):.1f}" for p in points]
    lower = [f"{scale.x(p.mid_at):.1f},{scale.y(p.lower):.1f}" for p in reversed(points)]
    line = " ".join(f"{scale.x(p.mid_at):.1f},{scale.y(p.value):.1f}" for p in points)
    dots = "".join(
        f'<circle class="dot" cx="{scale.x(p.mid_at):.1f}" cy="{scale.y(p.value):.1f}" r="2.6">'
        f"<title>{p.last_at:%d %b %H:%M:%S}: {p.value:.1%} ({p.lower:.0%} to {p.upper:.0%}) of {p.row_count} labels</title></circle>"
        for p in points
    )
    return f'<polygon class="band" points="{" ".join(upper + lower)}"/><polyline class="line" points="{line}"/>{dots}'


def _floor(scale: _Scale, floor: float) -> str:
    y = scale.y(floor)
    return (
        f'<line class="floor" x1="{LEFT}" x2="{PLOT[0] - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="floor-text" x="{PLOT[0] - RIGHT - 4}" y="{y + 14:.1f}" text-anchor="end">floor {floor:.0%}</text>'
    )


def _span(scale: _Scale, span: Span) -> str:
    left, right = scale.x(span.begin), scale.x(span.end)
    return (
        f'<rect class="span" x="{left:.1f}" width="{max(right - left, 1.5):.1f}" y="{TOP}" height="{PLOT[1] - TOP - BOTTOM}">'
        f"<title>{escape(span.text)}</title></rect>"
    )


def _marks(scale: _Scale, marks: Sequence[Mark]) -> list[str]:
    """Lines with their words on top; a word that would cover the one before it is left to the hover text."""
    parts, free_from = [], 0.0
    for mark in sorted(marks, key=lambda m: m.at):
        x = scale.x(mark.at)
        parts.append(f'<g class="mark {escape(mark.kind)}"><title>{mark.at:%d %b %H:%M:%S} {escape(mark.text)}</title>')
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{PLOT[1] - BOTTOM}"/>')
        room = len(mark.text) * 6.6
        left = min(x - 3, PLOT[0] - RIGHT - room)
        if left >= free_from:
            parts.append(f'<text x="{left:.1f}" y="{TOP - 11}">{escape(mark.text)}</text>')
            free_from = left + room + 8
        parts.append("</g>")
    return parts


def share_bar(share: float, word: str, kind: str) -> Markup:
    """A bar of 0..1 with a tick at its end, the threshold. Beyond 1 it is full."""
    filled = min(max(share, 0.0), 1.0) * 200
    return Markup(
        f'<svg class="bar {escape(kind)}" viewBox="0 0 204 12" width="204" height="12" role="img" aria-label="{escape(word)}">'
        '<rect class="track" x="0" y="3" width="200" height="6" rx="3"/>'
        f'<rect class="fill" x="0" y="3" width="{filled:.1f}" height="6" rx="3"/>'
        '<line class="limit" x1="200" x2="200" y1="0" y2="12"/></svg>'
    )


def range_bar(
    lower: float | None, observed: float | None, upper: float | None, threshold: float, *, scale: tuple[float, float] | None = None
) -> Markup:
    """An interval with its observed value and its threshold, on a scale that holds them all; empty when nothing was observed."""
    if lower is None or upper is None or observed is None:
        return Markup("")
    least, most = scale or (min(lower, threshold, observed), max(upper, threshold, observed))
    span = (most - least) or 1.0

    def x(value: float) -> float:
        return 6 + (value - least) / span * 148

    text = f"{observed:+.3f}, interval {lower:+.3f} to {upper:+.3f}, threshold {threshold:+.3f}"
    return Markup(
        f'<svg class="range" viewBox="0 0 160 16" width="160" height="16" role="img" aria-label="{text}"><title>{text}</title>'
        f'<line class="grid" x1="2" x2="158" y1="8" y2="8"/><line class="interval" x1="{x(lower):.1f}" x2="{x(upper):.1f}" y1="8" y2="8"/>'
        f'<circle class="dot" cx="{x(observed):.1f}" cy="8" r="3.2"/>'
        f'<line class="limit" x1="{x(threshold):.1f}" x2="{x(threshold):.1f}" y1="1" y2="15"/></svg>'
    )
