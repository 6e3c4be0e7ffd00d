"""Micro-batches: requests that wait together cross Ray together, once.

Nobody waits for company: while fewer than ``lanes`` batches are under way, whatever waits leaves at once. Under load the queue
fills during the passage of the batches before, and batches grow by themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from holdfast.errors import DeadlinePassed, Overloaded, PartUnavailable

log = logging.getLogger("holdfast.serving")
Question = tuple[str, str]
"""Digest of the adapter, text."""
Answer = tuple[str, float, bytes, tuple[int, int]]
"""Label, confidence, embedding as little-endian float16, tokens of the whole text and of what was read of it."""
Ask = Callable[[Sequence[Question]], Awaitable[Sequence[Answer | str]]]
"""Asks a replica. A text in place of an answer says why that question has none; PartUnavailable: ask all again."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0


@dataclass(eq=False, slots=True)
class Waiting:
    """One question and whoever waits for its answer."""

    question: Question
    deadline: float
    """On the clock of the event loop."""
    answered: asyncio.Future[Answer] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """The queue between the HTTP side and the replicas."""

    def __init__(self, ask: Ask, *, batch_rows: int, queue_rows: int, lanes: int, attempt_s: float = 8.0) -> None:
        """``attempt_s`` bounds one crossing: a replica that hangs is asked no longer than that before another is tried."""
        self._ask = ask
        self._batch_rows, self._queue_rows, self._lanes, self._attempt_s = batch_rows, queue_rows, lanes, attempt_s
        self._queue: deque[Waiting] = deque()
        self._under_way: set[asyncio.Task[None]] = set()
        self.batch_count = 0
        self.retry_count = 0

    @property
    def waiting_count(self) -> int:
        """Questions that no batch carries yet."""
        return len(self._queue)

    async def answer(self, questions: Sequence[Question], *, deadline_s: float) -> list[Answer]:
        """The answers, in the order asked.

        Raises:
            Overloaded: too many wait already; nothing was queued.
            DeadlinePassed: no answer came in time.
            PartUnavailable: the replica says it cannot answer one of them.
        """
        if len(self._queue) + len(questions) > self._queue_rows:
            raise Overloaded(count=len(self._queue))
        deadline = asyncio.get_running_loop().time() + deadline_s
        waiting = [Waiting(question, deadline) for question in questions]
        self._queue.extend(waiting)
        self._dispatch()
        try:
            async with asyncio.timeout_at(deadline):
                return [await one.answered for one in waiting]
        except TimeoutError as error:
            raise DeadlinePassed(seconds=deadline_s) from error
        finally:
            for one in waiting:
                if not one.answered.cancel() and not one.answered.cancelled():
                    one.answered.exception()  # the caller hears of the first; the others must not count as unheard

    def _dispatch(self) -> None:
        while self._queue and len(self._under_way) < self._lanes:
            batch = self._take()
            if batch:
                task = asyncio.create_task(self._carry(batch))
                self._under_way.add(task)
                task.add_done_callback(self._arrived)

    def _take(self) -> list[Waiting]:
        batch: list[Waiting] = []
        while self._queue and len(batch) < self._batch_rows:
            one = self._queue.popleft()
            if not one.answered.done():  # its caller may have gone
                batch.append(one)
        return batch

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._dispatch()

    async def _carry(self, batch: list[Waiting]) -> None:
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
