"""Compare: replay one history under two contracts. What both have in common is answered once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.domain.backtest import ReplayPlan
from holdfast.domain.comparison import Comparison, compare
from holdfast.domain.datasets import HistoryRow
from holdfast.domain.tasks import TaskContract
from holdfast.flows.backtest import Say, replay
from holdfast.flows.backtest_stage import SharedWork, Stage


def compare_policies(
    stages: tuple[Callable[[], Stage], Callable[[], Stage]],
    contracts: tuple[TaskContract, TaskContract],
    history: Sequence[HistoryRow],
    plan: ReplayPlan,
    *,
    names: tuple[str, str] = ("A", "B"),
    say: Say = lambda done, total: None,
) -> Comparison:
    """Replay ``history`` under both contracts, one after the other. Raises what ``backtest`` raises."""
    shared, replays = SharedWork(), []
    for number, (stage, contract) in enumerate(zip(stages, contracts, strict=True)):
        replays.append(
            replay(stage(), contract, history, plan, lambda done, total, n=number: say(n * total + done, 2 * total), shared=shared)  # type: ignore[misc]
        )
    return compare(names, replays[0], replays[1])
