"""The page of one backtest, and the parts that the page of a comparison has in common with it."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.domain.backtest import Backtest, Period, date_form
from holdfast.domain.tasks import titled
from holdfast.errors import StorageRefused

Lines = list[tuple[str, str, Sequence[Period], str]]
"""Class, words, periods and attribute of each line of a figure."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1000, 420, 56, 20, 60, 44
ARMS = (("accuracy_bound", "retrained on all labels", "bound"), ("accuracy_frozen", "frozen first version", "frozen"),
        ("accuracy_loop", "the loop", "loop"))  # fmt: skip
STYLE = """
:root { --ink:#1d2733; --soft:#5b6b7b; --line:#d7dee6; --back:#ffffff; --panel:#f5f7fa; --loop:#0b6e66; --frozen:#b4552d; --bound:#7b8794;
  --alert:#b3261e; --train:#7a4fb5; }
@media (prefers-color-scheme: dark) { :root { --ink:#e6edf3; --soft:#9fb0c0; --line:#33414f; --back:#11181f; --panel:#18222c;
  --loop:#3cc4b4; --frozen:#ef9a6a; --bound:#8b99a8; --alert:#ff7b72; --train:#b79af0; } }
body { margin:0 auto; max-width:1060px; padding:28px 24px 60px; background:var(--back); color:var(--ink);
  font:15px/1.5 system-ui, sans-serif; }
h1 { font-size:22px; margin:0 0 4px; } h2 { font-size:17px; margin:32px 0 8px; } p { margin:6px 0; } .soft { color:var(--soft); }
.cards { display:flex; flex-wrap:wrap; gap:12px; margin:18px 0; }
.card { background:var(--panel); border:1px solid var(--line); border-radius:8px; padding:10px 16px; min-width:130px; }
.card b { display:block; font-size:22px; font-variant-numeric:tabular-nums; }
.figure { overflow-x:auto; } svg { display:block; min-width:680px; width:100%; height:auto; } svg text { fill:var(--soft); font-size:12px; }
.grid { stroke:var(--line); } .loop { stroke:var(--loop); } .frozen { stroke:var(--frozen); }
.second { stroke:var(--train); } .bound { stroke:var(--bound); stroke-dasharray:5 4; }
.arm { fill:none; stroke-width:2.2; } .key { stroke-width:3; } .alert { stroke:var(--alert); stroke-dasharray:2 3; }
text.alert { fill:var(--alert); stroke:none; font-weight:600; } .train { fill:var(--train); } .refused { fill:none; stroke:var(--train); }
.promoted { fill:var(--loop); }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; } .wide { overflow-x:auto; }
th, td { text-align:left; padding:5px 10px; border-bottom:1px solid var(--line); vertical-align:top; } td.n, th.n { text-align:right; }
code { font-size:12px; }
"""


def write_page(result: Backtest, path: Path, *, title: str) -> None:
    """Write the page, whole or not at all. Raises StorageRefused."""
    write(page(result, title=title), path)


def write(text: str, path: Path) -> None:
    """Write a page, whole or not at all. Raises StorageRefused."""
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise StorageRefused(place=str(path), reason=error.strerror or str(error)) from error


def page(result: Backtest, *, title: str) -> str:
    """The page as text."""
    t = result.totals
    gap = "–" if t.share_of_gap is None else f"{t.share_of_gap:.0%}"
    cards = [
        ("the loop", f"{t.accuracy_loop:.3f}"), ("frozen first version", f"{t.accuracy_frozen:.3f}"),
        ("retrained on all labels", f"{t.accuracy_bound:.3f}"), ("of that gap won", gap), ("alerts", str(t.alert_count)),
        ("retrainings", str(t.retraining_count)), ("promotions", str(t.promotion_count)),
    ]  # fmt: skip
    facts = (
        f"{titled(t.metric)} of answers. "
        f"{t.warmup_rows} rows trained the first version, {t.events} events were replayed; {t.labels_known} labels had come by the end, "
        f"{t.labels_new} classes were new. Rung: {t.rung}. On unchanged traffic a false alarm within n events has probability "
        f"at most n / {t.run_length_events:,}. {t.seconds:.0f} seconds."
    )
    return document(f"Backtest of {title}", [facts], cards, [f'<div class="figure">{figure(result)}</div>', *_tables(result)])


def document(title: str, facts: Sequence[str], cards: Sequence[tuple[str, str]], body: Sequence[str]) -> str:
    """A whole page: title, facts and cards are texts, ``body`` is HTML."""
    told = "".join(f'<p class="soft">{safe(fact)}</p>' for fact in facts)
    shown = "".join(f'<div class="card">{safe(name)}<b>{value}</b></div>' for name, value in cards)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{safe(title)}</title><style>{STYLE}</style>'
    main = f'<h1>{safe(title)}</h1>{told}<div class="cards">{shown}</div>{"".join(body)}'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{main}</body></html>\n'


def figure(result: Backtest) -> str:
    """The metric over the history: three lines, a dotted line per alert, a diamond per retraining, a triangle per promotion."""
    periods = result.periods
    x, y, low, high = scales(periods)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{titled(result.totals.metric)} of the three arms over the history">'
    ]
    parts += grid(y, low, high) + dates(periods, x)
    for attribute, _, name in ARMS:
        points = " ".join(f"{x(p.first_index + p.events / 2):.1f},{y(getattr(p, attribute)):.1f}" for p in periods)
        parts.append(f'<polyline class="arm {name}" points="{points}"><title>{name}</title></polyline>')
    parts += _marks(result, x) + _key()
    return "".join([*parts, "</svg>"])


def grid(y: Callable[[float], float], low: float, high: float) -> list[str]:
    """A line and its number for every tenth."""
    parts = []
    for step in range(round(low * 10), round(high * 10) + 1):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(step / 10):.1f}" y2="{y(step / 10):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(step / 10) + 4:.1f}" text-anchor="end">{step / 10:.1f}</text>')
    return parts


def dates(periods: Sequence[Period], x: Callable[[float], float]) -> list[str]:
    """When some of the periods began; what reads like the one before it is left out."""
    form = date_form(periods)
    parts, before = [], ""
    for period in periods[:: max(1, len(periods) // 6)]:
        if f"{period.start:{form}}" != before:
            before = f"{period.start:{form}}"
            parts.append(f'<text x="{x(period.first_index):.1f}" y="{HEIGHT - 22}">{before}</text>')
    return parts


def scales(periods: Sequence[Period]) -> tuple[Callable[[float], float], Callable[[float], float], float, float]:
    """Place of an event from left to right, height of a share, and the least and greatest share shown."""
    first, last = periods[0].first_index, periods[-1].first_index + periods[-1].events
    worst = min(min(p.accuracy_loop, p.accuracy_frozen, p.accuracy_bound) for p in periods)
    best = max(max(p.accuracy_loop, p.accuracy_frozen, p.accuracy_bound) for p in periods)
    low, high = max(0.0, (int(worst * 10) - 1) / 10), min(1.0, (int(best * 10) + 2) / 10)
    return (
        lambda index: LEFT + (WIDTH - LEFT - RIGHT) * (index - first) / (last - first),
        lambda share: TOP + (HEIGHT - TOP - BOTTOM) * (high - share) / (high - low),
        low,
        high,
    )


def _marks(result: Backtest, x: Callable[[float], float]) -> list[str]:
    floor, parts = HEIGHT - BOTTOM, []
    for number, alert in enumerate(result.alerts, start=1):
        at = x(alert.event_index)
        told = f"<title>{safe(f'alert {number}: {alert.diagnosis}. {alert.sentence}')}</title>"
        parts.append(f'<line class="alert" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{floor}">{told}</line>')
        parts.append(
            f'<text class="alert" x="{at + 3:.1f}" y="{TOP + 12 + 14 * ((number - 1) % 3)}">{number} {safe(alert.diagnosis)}</text>'
        )
    for r in result.retrainings:
        shape = "train" if r.verdict == "pass" else "refused"
        told = f"<title>{safe(f'retraining on {r.labels_used} labels: {r.verdict}')}</title>"
        at = x(r.event_index)
        parts.append(f'<path class="{shape}" d="M{at:.1f} {floor - 7} l6 7 l-6 7 l-6 -7 z">{told}</path>')
    for p in result.promotions:
        told = f"<title>{safe(f'promotion of {p.adapter_digest}')}</title>"
        parts.append(f'<path class="promoted" d="M{x(p.event_index):.1f} {TOP - 12} l7 12 l-14 0 z">{told}</path>')
    return parts


def _key() -> list[str]:
    parts, at = [], LEFT
    for _, words, name in ARMS:
        parts.append(f'<line class="key {name}" x1="{at}" x2="{at + 26}" y1="16" y2="16"/><text x="{at + 32}" y="20">{words}</text>')
        at += 60 + 7 * len(words)
    parts.append(f'<text class="alert" x="{at}" y="20">┊ alert</text>')
    parts.append(
        f'<path class="train" d="M{at + 76} 9 l6 7 l-6 7 l-6 -7 z"/><text x="{at + 86}" y="20">retraining (hollow: refused)</text>'
    )
    parts.append(f'<path class="promoted" d="M{at + 270} 9 l7 13 l-14 0 z"/><text x="{at + 282}" y="20">promotion</text>')
    return parts


def _tables(result: Backtest) -> list[str]:
    form = date_form(result.periods)
    alerts = [(f"{a.at:{form}}", a.event_index, a.onset_index, a.monitor, a.diagnosis, a.sentence) for a in result.alerts]
    trained = [
        (f"{r.requested_at:{form}}", r.event_index, r.labels_used, f"{r.seconds:.1f}", r.verdict, r.reason) for r in result.retrainings
    ]
    moved = [(f"{p.at:{form}}", p.event_index, p.adapter_digest) for p in result.promotions]
    rows = [
        (f"{p.start:{form}}", f"{p.end:{form}}", p.events, f"{p.accuracy_loop:.3f}", f"{p.accuracy_frozen:.3f}", f"{p.accuracy_bound:.3f}")
        for p in result.periods
    ]
    return [
        table("Alerts", ("at", "event", "change began at", "monitors", "diagnosis", "in words"), alerts),
        table("Retrainings", ("asked at", "event", "labels", "seconds", "verdict", "reason"), trained),
        table("Promotions", ("at", "event", "adapter"), moved),
        table(f"{titled(result.totals.metric)} by period", ("from", "to", "events", "loop", "frozen", "bound"), rows),
    ]


def table(name: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A titled table as HTML."""
    if not rows:
        return f'<h2>{name}</h2><p class="soft">None.</p>'
    top = "".join(f"<th>{word}</th>" for word in head)
    lines = "".join("<tr>" + "".join(f"<td>{safe(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<h2>{name}</h2><div class="wide"><table><tr>{top}</tr>{lines}</table></div>'


def safe(text: str) -> str:
    """A text as HTML."""
    return html.escape(text, quote=True)
