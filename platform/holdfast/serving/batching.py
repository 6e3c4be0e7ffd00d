"""Micro-batches: requests that wait together cross Ray together, once.

Nobody waits for company: while fewer than ``lanes`` batches are under way, whatever waits leaves at once. Under load the queue
fills during the passage of the batches before, and batches grow by themselves.

Tasks share the way fairly: each has a line of its own (`fair_queue`), a bound of its own, and, while another task asks, no more rows
on their way than the quietest of the others has outstanding, or ``task_rows`` if that is more; so whoever asks little waits behind few
rows of whoever asks much. Where all ask alike nobody is quiet: batches are full, and turns alone make the shares alike.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from holdfast.errors import DeadlinePassed, Overloaded, PartUnavailable
from holdfast.serving.fair_queue import FairQueue
from holdfast.serving.waiting import Answer, Company, Question, Rates, Waiting, cost_of

__all__ = ["Answer", "Ask", "Batcher", "Question", "Waiting"]

log = logging.getLogger("holdfast.serving")
Ask = Callable[[Sequence[Question]], Awaitable[Sequence[Answer | str]]]
"""Asks a replica. A text in place of an answer says why that question has none; PartUnavailable: ask all again."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
QUANTUM = 8
"""Cost of one turn: eight short texts, or one long one."""
SPARE = "\x00spare"
"""The flow of copies that nobody waits for."""
SPARE_ROWS = 64
"""Copies that may wait for an idle moment."""


class Batcher:
    """The queue between the HTTP side and the replicas."""

    def __init__(
        self,
        ask: Ask,
        *,
        batch_rows: int,
        queue_rows: int,
        lanes: int,
        attempt_s: float = 8.0,
        task_queue_rows: int | None = None,
        task_rows: int | None = None,
    ) -> None:
        """``attempt_s`` bounds one crossing: a replica that hangs is asked no longer than that before another is tried.

        ``task_queue_rows`` bounds what one task may have waiting, ``task_rows`` what it may have on its way beside a task that asks one
        thing at a time; None: as much as all.
        """
        self._ask = ask
        self._batch_rows, self._queue_rows, self._lanes, self._attempt_s = batch_rows, queue_rows, lanes, attempt_s
        self._task_queue_rows, self._task_rows = task_queue_rows or queue_rows, task_rows
        self._queue: FairQueue[Waiting] = FairQueue(quantum=QUANTUM)
        self._spare: FairQueue[Waiting] = FairQueue(quantum=QUANTUM)
        self._under_way: set[asyncio.Task[None]] = set()
        self._rows_under_way: Counter[str] = Counter()
        self._company, self._rates = Company(), Rates()
        self.batch_count = 0
        self.retry_count = 0
        self.dropped_count = 0
        """Copies that found no idle moment."""

    @property
    def waiting_count(self) -> int:
        """Questions that no batch carries yet."""
        return len(self._queue)

    async def answer(self, questions: Sequence[Question], *, deadline_s: float, flow: str = "") -> list[Answer]:
        """The answers, in the order asked. ``flow``: whose questions these are, for fairness; the task.

        Raises:
            Overloaded: too many wait already; nothing was queued.
            DeadlinePassed: no answer came in time.
            PartUnavailable: the replica says it cannot answer one of them.
        """
        self._check_room(flow, len(questions))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + deadline_s
        waiting = [Waiting(question, deadline) for question in questions]
        for one in waiting:
            self._queue.push(flow, one, cost_of(one.question))
        self._company.seen(flow, self._queue.waiting(flow) + self._rows_under_way[flow], loop.time())
        self._dispatch()
        return await self._awaited(waiting, deadline, deadline_s)

    async def answer_copy(self, question: Question, *, deadline_s: float) -> Answer | None:
        """The answer to a copy nobody waits for: at an idle moment within the deadline, or None. Raises PartUnavailable."""
        if len(self._queue) or len(self._spare) >= SPARE_ROWS:
            self.dropped_count += 1
            return None
        deadline = asyncio.get_running_loop().time() + deadline_s
        one = Waiting(question, deadline)
        self._spare.push(SPARE, one, cost_of(question))
        self._dispatch()
        try:
            return (await self._awaited([one], deadline, deadline_s))[0]
        except DeadlinePassed:
            self.dropped_count += 1
            return None

    def retry_after_s(self, flow: str) -> int:
        """Whole seconds, 1..60, after which what this flow has waiting will have left, at the rate of the last seconds."""
        return self._rates.seconds_for(flow, self._queue.waiting(flow), asyncio.get_running_loop().time())

    def _check_room(self, flow: str, count: int) -> None:
        if self._queue.waiting(flow) + count > self._task_queue_rows or len(self._queue) + count > self._queue_rows:
            raise Overloaded(count=len(self._queue), retry_after_s=self.retry_after_s(flow))

    @staticmethod
    async def _awaited(waiting: Sequence[Waiting], deadline: float, deadline_s: float) -> list[Answer]:
        try:
            async with asyncio.timeout_at(deadline):
                return [await one.answered for one in waiting]
        except TimeoutError as error:
            raise DeadlinePassed(seconds=round(deadline_s, 3)) from error
        finally:
            for one in waiting:
                if not one.answered.cancel() and not one.answered.cancelled():
                    one.answered.exception()  # the caller hears of the first; the others must not count as unheard

    def _dispatch(self) -> None:
        while len(self._under_way) < self._lanes:
            batch = self._take()
            if not batch:
                return
            self._send(batch)

    def _send(self, batch: list[tuple[str, Waiting]]) -> None:
        rows = Counter(flow for flow, _ in batch)
        carried = self._carry([one for _, one in batch], rows)
        carrier = asyncio.create_task(carried)
        self._under_way.add(carrier)
        carrier.add_done_callback(self._arrived)

    def _take(self) -> list[tuple[str, Waiting]]:
        """The rows of the next batch; copies only when nobody waits and nothing else is under way."""
        batch = self._taken(self._queue, self._may_go)
        if not batch and not self._queue and not self._under_way:
            batch = self._taken(self._spare, lambda _: True)
        return batch

    def _taken(self, queue: FairQueue[Waiting], may: Callable[[str], bool]) -> list[tuple[str, Waiting]]:
        batch: list[tuple[str, Waiting]] = []
        while len(batch) < self._batch_rows and (found := queue.pop(may)) is not None:
            flow, one = found
            if not one.answered.done():  # its caller may have gone
                batch.append(found)
                self._rows_under_way[flow] += 1
        return batch

    def _may_go(self, flow: str) -> bool:
        if self._task_rows is None or self._rows_under_way[flow] < self._task_rows:
            return True
        return self._rows_under_way[flow] < self._company.quietest_beside(flow, asyncio.get_running_loop().time()) - 0.5

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._dispatch()

    async def _carry(self, batch: list[Waiting], rows: Counter[str]) -> None:
        try:
            await self._asked(batch)
        finally:
            now = asyncio.get_running_loop().time()
            for flow, count in rows.items():
                self._rates.left(flow, count, now)
                self._rows_under_way[flow] -= count
            self._rows_under_way += Counter()  # forgets the zeros

    async def _asked(self, batch: list[Waiting]) -> None:
        """Ask until answered or until nobody waits any more. Predictions change nothing, so asking twice is harmless."""
        pause = FIRST_PAUSE_S
        while batch := [one for one in batch if not one.answered.done()]:
            try:
                async with asyncio.timeout(self._attempt_s):
                    answers = await self._ask([one.question for one in batch])
                self.batch_count += 1
                self._hand_out(batch, answers)
                return
            except (PartUnavailable, TimeoutError) as error:
                self.retry_count += 1
                log.warning("a batch of %d is asked again: %s", len(batch), error or "no answer in time")
            except Exception as error:  # a fault of ours must reach the callers, not leave them waiting
                log.exception("a batch of %d failed", len(batch))
                self._fail(batch, PartUnavailable(part="gateway", reason=type(error).__name__))
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    @staticmethod
    def _hand_out(batch: list[Waiting], answers: Sequence[Answer | str]) -> None:
        for one, answer in zip(batch, answers, strict=True):
            if one.answered.done():
                continue
            if isinstance(answer, str):
                one.answered.set_exception(PartUnavailable(part="replica", reason=answer))
            else:
                one.answered.set_result(answer)

    @staticmethod
    def _fail(batch: list[Waiting], error: PartUnavailable) -> None:
        for one in batch:
            if not one.answered.done():
                one.answered.set_exception(error)
