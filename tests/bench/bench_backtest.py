"""What the loop would have done on real histories, beside a frozen first version and a bound that retrains on every label.

    python tests/bench/bench_backtest.py [--smoke] [--data FOLDER] [--only NAME]

Histories: titles of computer-science papers (real drift of ten years; every third row, 12,279 of them), Kubernetes release notes
with one owner (real drift over nine releases), Banking77 shuffled (nothing changes: no alarm is right), and synthetic tickets.
Rung head, labels after 100 events, all of them; one thread. Printed: accuracies, the share of what could be won, deeds, seconds.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console

from holdfast.bootstrap.backtest import read_history
from holdfast.cli.backtest import run
from holdfast.domain.backtest import Backtest, ReplayPlan, derived_contract, warmup_rows
from holdfast.domain.datasets import HistoryRow
from holdfast.testing.traffic import history, stream

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
History = tuple[HistoryRow, ...]


@dataclass(frozen=True)
class Case:
    """One history."""

    name: str
    read: Callable[[Path], History]
    changes: bool
    """Whether something is known to change in it."""


def arxiv(data: Path) -> History:
    """Every third row."""
    rows = read_history(data / "arxiv_cs" / "arxiv_cs_2007_2016.csv.gz", text="title", label="primary_cat", time="created")
    return dated((row.text, row.label, row.at) for row in rows[::3])


def k8s(data: Path) -> History:
    """Notes that exactly one group owns."""
    path = data / "k8s_release_notes" / "k8s_release_notes_1.20_1.28.jsonl"
    return tuple(read_history(path, text="text", label="sigs", time="release_date"))


def banking77(data: Path) -> History:
    """Training and test rows together, shuffled; an event every ten minutes."""
    rows = []
    for name in ("train.csv", "test.csv"):
        with (data / "banking77" / name).open(encoding="utf-8") as file:
            rows += [(row["text"], row["category"]) for row in csv.DictReader(file)]
    random.Random(1).shuffle(rows)
    return dated((text, label, BEGAN + timedelta(minutes=10 * n)) for n, (text, label) in enumerate(rows))


def tickets(_: Path, *, rows: int = 4_000, change_at: int = 1_500) -> History:
    """Synthetic tickets whose world changes once."""
    written = [*history(1, 1_000), *stream(1, rows, change_at)]
    return dated((t.text, t.label, BEGAN + timedelta(minutes=10 * n)) for n, t in enumerate(written))


def dated(rows: Iterator[tuple[str, str, datetime]]) -> History:
    return tuple(HistoryRow(text=text, label=label, at=at, index=n) for n, (text, label, at) in enumerate(rows))


CASES = (
    Case("arxiv titles, every third", arxiv, True), Case("k8s notes, one owner", k8s, True),
    Case("banking77, shuffled", banking77, False), Case("synthetic tickets", tickets, True),
)  # fmt: skip


def line(case: Case, result: Backtest) -> str:
    t = result.totals
    gap = "      –" if t.share_of_gap is None else f"{t.share_of_gap:7.2f}"
    return (
        f"{case.name:26} {t.events:7} {t.accuracy_loop:7.3f} {t.accuracy_frozen:7.3f} {t.accuracy_bound:7.3f} {gap} {t.alert_count:7} "
        f"{t.retraining_count:7} {t.promotion_count:7} {t.seconds:7.0f}"
    )


def main() -> int:
    """Exit code 1 when an unchanged history raised an alarm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a short synthetic history alone")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the histories")
    parser.add_argument("--only", default="", help="histories whose name holds this")
    asked = parser.parse_args()
    cases: tuple[Case, ...] = CASES
    if asked.smoke:
        cases = (Case("synthetic tickets, short", lambda data: tickets(data, rows=900, change_at=250), True),)
    heads = ("events", "loop", "frozen", "bound", "of gap", "alerts", "trained", "moved", "s")
    print(f"{'history':26}" + "".join(f" {name:>7}" for name in heads))
    false_alarms = 0
    for case in cases:
        if asked.only not in case.name:
            continue
        rows, plan = case.read(asked.data), ReplayPlan()
        result = run(rows, derived_contract(rows[: warmup_rows(rows, plan)]), plan, Console(stderr=True))
        print(line(case, result), flush=True)
        false_alarms += 0 if case.changes else result.totals.alert_count
    return 1 if false_alarms else 0


if __name__ == "__main__":
    sys.exit(main())
