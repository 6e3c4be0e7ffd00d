"""`holdfast drill` on a home whose traffic does not change: what would be seen, how soon, and how often it cries wolf.

    python tests/bench/bench_drill.py [--smoke]

The first version is trained on 400 synthetic support tickets and answers 1,000 more, all labelled; then the command runs as a person
types it. Nothing but the standard output of the command is printed.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from holdfast.bootstrap.backtest import for_backtest
from holdfast.cli import run
from holdfast.domain.backtest import ReplayPlan, derived_contract
from holdfast.domain.datasets import HistoryRow
from holdfast.flows.backtest import LoopArm
from holdfast.settings import read_settings
from holdfast.testing.traffic import history

WARMUP, CAPTURES = 400, 1000


def make_home(folder: Path) -> None:
    """A database and adapters as a home has them, with the task `backtest`."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        HistoryRow(text=t.text, label=t.label, at=began + timedelta(hours=n), index=n) for n, t in enumerate(history(5, WARMUP + CAPTURES))
    ]
    loop = LoopArm(for_backtest(read_settings(folder), folder), derived_contract(rows[:WARMUP]), ReplayPlan(label_delay=0))
    loop.begin(rows[:WARMUP])
    loop.play(rows[WARMUP:], lambda done: None)
    (folder / "keys").mkdir()
    (folder / "holdfast.db").symlink_to(folder / "backtest.db")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        make_home(Path(name))
        few = ["--replicates", "2", "--share", "0.5"] if "--smoke" in sys.argv else []
        return run(["--home", name, "drill", "backtest", *few])


if __name__ == "__main__":
    sys.exit(main())
