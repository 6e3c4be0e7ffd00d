"""The shared queue: turns are worth the same, whoever comes newly goes first, and nothing is lost or starved."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.serving.fair_queue import FairQueue


def drained(queue: FairQueue[int], count: int) -> list[str]:
    found = [queue.pop() for _ in range(count)]
    return [one[0] for one in found if one is not None]


def test_two_backlogs_share_alike_however_long_they_are() -> None:
    queue: FairQueue[int] = FairQueue(quantum=4)
    for number in range(1000):
        queue.push("flood", number, 1)
    for number in range(40):
        queue.push("steady", number, 1)
    assert Counter(drained(queue, 80)) == {"flood": 40, "steady": 40}


def test_turns_are_worth_the_same_cost_not_the_same_number() -> None:
    queue: FairQueue[int] = FairQueue(quantum=8)
    for number in range(400):
        queue.push("long texts", number, 8)
        queue.push("short texts", number, 1)
    counted = Counter(drained(queue, 90))
    assert counted == {"long texts": 10, "short texts": 80}


def test_a_newcomer_goes_before_a_backlog() -> None:
    queue: FairQueue[int] = FairQueue(quantum=4)
    for number in range(100):
        queue.push("flood", number, 1)
    drained(queue, 10)
    queue.push("quiet", 0, 1)
    assert drained(queue, 1) == ["quiet"]


def test_a_flow_that_comes_newly_again_and_again_starves_nobody() -> None:
    queue: FairQueue[int] = FairQueue(quantum=1)
    for number in range(100):
        queue.push("flood", number, 1)
    counted: Counter[str] = Counter()
    for number in range(100):
        queue.push("sly", number, 1)
        counted.update(drained(queue, 1))
    assert counted["flood"] >= 40


def test_a_flow_that_may_not_go_keeps_its_place() -> None:
    queue: FairQueue[int] = FairQueue(quantum=2)
    for number in range(6):
        queue.push("a", number, 1)
        queue.push("b", number, 1)
    assert [queue.pop(lambda flow: flow == "b") for _ in range(7)] == [*[("b", n) for n in range(6)], None]
    assert [queue.pop() for _ in range(7)] == [*[("a", n) for n in range(6)], None]
    assert len(queue) == 0


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 8)), max_size=200), st.integers(1, 8))
def test_every_item_comes_out_once_and_in_the_order_of_its_flow(pushed: list[tuple[str, int]], quantum: int) -> None:
    queue: FairQueue[int] = FairQueue(quantum=quantum)
    for number, (flow, cost) in enumerate(pushed):
        queue.push(flow, number, cost)
    out = []
    while (one := queue.pop()) is not None:
        out.append(one)
    for flow in "abcde":
        assert [n for f, n in out if f == flow] == [n for n, (f, _) in enumerate(pushed) if f == flow]
    assert len(out) == len(pushed)
