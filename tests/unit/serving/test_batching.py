"""Micro-batches: nobody waits while a lane is free, everybody is answered or told why, a dead replica is asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from holdfast.errors import DeadlinePassed, Overloaded, PartUnavailable
from holdfast.serving.batching import Answer, Batcher, Question
from holdfast.serving.waiting import COMPANY_S, FLOWS_KEPT, LONGEST_RETRY_S, RANK_S, Company, Rates


def echo(questions: Sequence[Question]) -> list[Answer | str]:
    """Labels with the text; `mute` has no answer."""
    return [f"no answer to {text}" if text == "mute" else (text, 0.5, b"", (3, 3), ()) for _, text in questions]


class Replica:
    """Answers when it is let go; remembers its batches."""

    def __init__(self, *, failures: int = 0) -> None:
        self.batches: list[list[str]] = []
        self.failures = failures
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, questions: Sequence[Question]) -> list[Answer | str]:
        self.batches.append([text for _, text in questions])
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise PartUnavailable(part="replica", reason="it was killed")
        return echo(questions)


def batcher_of(ask: Callable[[Sequence[Question]], Awaitable[Sequence[Answer | str]]], **fields: int) -> Batcher:
    known = {"batch_rows": 4, "queue_rows": 8, "lanes": 1} | fields
    return Batcher(ask, **known)


async def ask(batcher: Batcher, *texts: str, deadline_s: float = 5.0) -> list[str]:
    answers = await batcher.answer([("sha256:a", text) for text in texts], deadline_s=deadline_s)
    return [answer[0] for answer in answers]


def test_a_lone_request_leaves_at_once() -> None:
    async def story() -> None:
        replica = Replica()
        assert await ask(batcher_of(replica), "one") == ["one"]
        assert replica.batches == [["one"]]

    asyncio.run(story())


def test_requests_that_wait_together_cross_together_and_each_gets_its_own_answer() -> None:
    async def story() -> None:
        replica = Replica()
        replica.open.clear()
        batcher = batcher_of(replica)
        first = asyncio.create_task(ask(batcher, "first"))
        await asyncio.sleep(0)
        others = [asyncio.create_task(ask(batcher, text)) for text in "abcde"]
        await asyncio.sleep(0)
        replica.open.set()
        assert await first == ["first"]
        assert [await other for other in others] == [[text] for text in "abcde"]
        assert replica.batches == [["first"], ["a", "b", "c", "d"], ["e"]]

    asyncio.run(story())


def test_a_dead_replica_is_asked_again_and_the_caller_never_hears_of_it() -> None:
    async def story() -> None:
        replica = Replica(failures=3)
        batcher = batcher_of(replica)
        assert await ask(batcher, "one", "two") == ["one", "two"]
        assert (len(replica.batches), batcher.retry_count) == (4, 3)

    asyncio.run(story())


def test_a_replica_that_hangs_is_given_up_after_one_attempt_time() -> None:
    async def story() -> None:
        seen = []

        async def hangs_once(questions: Sequence[Question]) -> list[Answer | str]:
            seen.append(len(questions))
            if len(seen) == 1:
                await asyncio.Event().wait()
            return echo(questions)

        batcher = Batcher(hangs_once, batch_rows=4, queue_rows=8, lanes=1, attempt_s=0.05)
        assert await ask(batcher, "one") == ["one"]
        assert seen == [1, 1]

    asyncio.run(story())


def test_no_answer_in_time_is_said_and_the_question_leaves_the_queue() -> None:
    async def story() -> None:
        replica = Replica()
        replica.open.clear()
        batcher = batcher_of(replica)
        with pytest.raises(DeadlinePassed):
            await ask(batcher, "one", deadline_s=0.02)
        replica.open.set()
        assert await ask(batcher, "two") == ["two"]

    asyncio.run(story())


def test_a_full_queue_refuses_at_once_and_takes_nothing() -> None:
    async def story() -> None:
        replica = Replica()
        replica.open.clear()
        batcher = batcher_of(replica, queue_rows=2)
        waiting = [asyncio.create_task(ask(batcher, text)) for text in ("under way", "a", "b")]
        await asyncio.sleep(0.01)
        assert batcher.waiting_count == 2
        with pytest.raises(Overloaded):
            await ask(batcher, "c")
        replica.open.set()
        assert [await one for one in waiting] == [["under way"], ["a"], ["b"]]

    asyncio.run(story())


def test_an_answer_that_cannot_be_given_fails_its_own_caller_alone() -> None:
    async def story() -> None:
        replica = Replica()
        replica.open.clear()
        batcher = batcher_of(replica)
        first = asyncio.create_task(ask(batcher, "first"))
        await asyncio.sleep(0)
        good, bad = asyncio.create_task(ask(batcher, "good")), asyncio.create_task(ask(batcher, "mute", "mute"))
        await asyncio.sleep(0)
        replica.open.set()
        assert (await first, await good) == (["first"], ["good"])
        with pytest.raises(PartUnavailable, match="no answer to mute"):
            await bad

    asyncio.run(story())


def test_a_caller_that_goes_away_costs_no_place_in_a_batch() -> None:
    async def story() -> None:
        replica = Replica()
        replica.open.clear()
        batcher = batcher_of(replica)
        first = asyncio.create_task(ask(batcher, "first"))
        await asyncio.sleep(0)
        gone, stays = asyncio.create_task(ask(batcher, "gone")), asyncio.create_task(ask(batcher, "stays"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        replica.open.set()
        assert (await first, await stays) == (["first"], ["stays"])
        assert replica.batches == [["first"], ["stays"]]

    asyncio.run(story())


def test_a_fault_of_ours_reaches_the_caller() -> None:
    async def story() -> None:
        async def broken(questions: Sequence[Question]) -> list[Answer | str]:
            raise TypeError("a bug")

        with pytest.raises(PartUnavailable, match="TypeError"):
            await ask(batcher_of(broken), "one")

    asyncio.run(story())


def test_one_tasks_backlog_does_not_fill_the_way_while_a_quiet_task_asks() -> None:
    async def story() -> None:
        replica = Replica()
        replica.open.clear()
        batcher = batcher_of(replica, batch_rows=4, queue_rows=100, lanes=2, task_rows=2)
        quiet = asyncio.create_task(batcher.answer([("sha256:q", "before")], deadline_s=5, flow="quiet"))
        flood = [asyncio.create_task(batcher.answer([("sha256:f", f"f{n}")], deadline_s=5, flow="flood")) for n in range(20)]
        await asyncio.sleep(0.01)
        assert replica.batches == [["before"], ["f0"]]
        replica.open.set()
        await quiet
        later = await batcher.answer([("sha256:q", "later")], deadline_s=5, flow="quiet")
        await asyncio.gather(*flood)
        assert later[0][0] == "later"
        assert max(sum(text.startswith("f") for text in batch) for batch in replica.batches) <= 2
        assert sum(map(len, replica.batches)) == 22

    asyncio.run(story())


def test_a_task_alone_and_tasks_that_all_have_a_backlog_fill_their_batches() -> None:
    async def story() -> None:
        replica = Replica()
        replica.open.clear()
        batcher = batcher_of(replica, batch_rows=8, queue_rows=100, task_rows=1)
        alone = [asyncio.create_task(batcher.answer([("sha256:a", f"a{n}")], deadline_s=5, flow="alone")) for n in range(9)]
        await asyncio.sleep(0)
        replica.open.set()
        await asyncio.gather(*alone)
        assert [len(batch) for batch in replica.batches] == [1, 8]

    asyncio.run(story())


def test_two_tasks_that_ask_alike_share_full_batches() -> None:
    async def story() -> None:
        replica = Replica()
        replica.open.clear()
        batcher = batcher_of(replica, batch_rows=16, queue_rows=100, task_rows=1)
        many = [("sha256:x", f"{n}") for n in range(8)]
        asked = [asyncio.create_task(batcher.answer(many, deadline_s=5, flow=flow)) for flow in ("first", "one", "other")]
        await asyncio.sleep(0)
        replica.open.set()
        await asyncio.gather(*asked)
        assert [len(batch) for batch in replica.batches] == [8, 16]

    asyncio.run(story())


def test_the_quietest_beside_a_flow_is_the_lowest_level_of_the_others_that_asked_of_late() -> None:
    company = Company()
    assert company.quietest_beside("a", 0.0) == float("inf")
    company.seen("flood", 30, 0.0)
    company.seen("busy", 8, 0.0)
    assert company.quietest_beside("flood", 0.0) == 8
    assert company.quietest_beside("busy", 0.0) == 30
    company.seen("quiet", 1, 0.0)  # who comes newly counts at once
    assert (company.quietest_beside("flood", 0.0), company.quietest_beside("quiet", 0.0)) == (1, 8)
    for _ in range(100):
        company.seen("quiet", 9, RANK_S)
    assert company.quietest_beside("flood", 2 * RANK_S) == 8  # it asks as much as others now
    assert company.quietest_beside("flood", COMPANY_S + RANK_S / 2) == pytest.approx(9, abs=0.01)  # the others were last seen before
    assert company.quietest_beside("quiet", COMPANY_S + 2 * RANK_S) == float("inf")


def test_what_is_known_of_flows_is_bounded() -> None:
    company = Company()
    for number in range(FLOWS_KEPT + 10):
        company.seen(f"task-{number}", 1, 0.0)
    assert len(company._levels) == FLOWS_KEPT


def test_a_flood_is_refused_at_its_own_bound_and_told_when_its_line_will_have_moved() -> None:
    async def story() -> None:
        replica = Replica()
        batcher = batcher_of(replica, batch_rows=1, queue_rows=100, task_queue_rows=4)
        for _ in range(10):  # so that the rate of the line is known: it is fast
            await batcher.answer([("sha256:f", "x")], deadline_s=5, flow="flood")
        replica.open.clear()
        flood = [asyncio.create_task(batcher.answer([("sha256:f", f"f{n}")], deadline_s=5, flow="flood")) for n in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await batcher.answer([("sha256:f", "more")], deadline_s=5, flow="flood")
        assert refused.value.fields["retry_after_s"] in (2, 3)  # four wait, and ten left within the five seconds of the average
        other = asyncio.create_task(batcher.answer([("sha256:o", "other")], deadline_s=5, flow="other"))
        await asyncio.sleep(0)
        replica.open.set()
        assert (await other)[0][0] == "other"
        await asyncio.gather(*flood)

    asyncio.run(story())


def test_a_line_that_does_not_move_asks_for_a_longer_pause_up_to_a_minute() -> None:
    rates = Rates()
    assert rates.seconds_for("new", 100, 0.0) == 1
    rates.left("slow", 1, 0.0)
    assert rates.seconds_for("slow", 4, 0.0) == 20
    assert rates.seconds_for("slow", 100, 0.0) == LONGEST_RETRY_S


def test_a_copy_is_answered_at_an_idle_moment_and_dropped_under_load() -> None:
    async def story() -> None:
        replica = Replica()
        batcher = batcher_of(replica)
        copy = await batcher.answer_copy(("sha256:s", "copy"), deadline_s=5)
        assert copy is not None and copy[0] == "copy"
        replica.open.clear()
        first = asyncio.create_task(ask(batcher, "first"))
        await asyncio.sleep(0)
        waits = asyncio.create_task(batcher.answer_copy(("sha256:s", "waits"), deadline_s=5))
        await asyncio.sleep(0)
        real = asyncio.create_task(ask(batcher, "real"))
        await asyncio.sleep(0)
        assert await batcher.answer_copy(("sha256:s", "dropped"), deadline_s=5) is None
        replica.open.set()
        await asyncio.gather(first, real, waits)
        assert replica.batches == [["copy"], ["first"], ["real"], ["waits"]]
        assert batcher.dropped_count == 1
        replica.open.clear()
        stuck = asyncio.create_task(ask(batcher, "stuck"))
        await asyncio.sleep(0)
        assert await batcher.answer_copy(("sha256:s", "too late"), deadline_s=0.01) is None
        replica.open.set()
        await stuck

    asyncio.run(story())
