"""The real batcher on a virtual clock, before a modelled replica: what the queue itself does, free of the machine's noise."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from holdfast.errors import Overloaded
from holdfast.serving.batching import Answer, Batcher, Question

CROSSING_S, ROW_S = 0.003, 0.006
FLOOD_CLIENTS = 48
T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing else is to be done."""

    def __init__(self) -> None:
        self._virtual = 0.0
        super().__init__()

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        if not ready and scheduled:
            self._virtual = max(self._virtual, scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]


class ModelReplica:
    """``passes`` batches at a time, in the order they come."""

    def __init__(self, passes: int) -> None:
        self._passes = asyncio.Semaphore(passes)
        self.rows = self.batches = 0

    async def __call__(self, questions: Sequence[Question]) -> list[Answer | str]:
        await asyncio.sleep(CROSSING_S / 2)
        async with self._passes:
            await asyncio.sleep(ROW_S * len(questions))
        self.rows += len(questions)
        self.batches += 1
        await asyncio.sleep(CROSSING_S / 2)
        return [("label", 0.5, b"", (3, 3), ()) for _ in questions]


def quiet_beside(flood: bool, *, fair: bool, seconds: float, task_rows: int = 1, passes: int = 1) -> tuple[list[float], float]:
    """Latencies of a quiet task (ms; one client that pauses 100 to 300 ms) and the rows per second of all."""

    async def story() -> tuple[list[float], float]:
        replica = ModelReplica(passes)
        batcher = _batcher(replica, fair=fair, task_rows=task_rows)
        loop, chance, found = asyncio.get_running_loop(), random.Random(3), []
        floods = [asyncio.create_task(_busy(batcher, "flood" if fair else "", seconds)) for _ in range(FLOOD_CLIENTS if flood else 0)]
        while loop.time() < seconds:
            await asyncio.sleep(chance.uniform(0.1, 0.3))
            began = loop.time()
            await batcher.answer([("quiet", "text")], deadline_s=30, flow="quiet" if fair else "")
            found.append((loop.time() - began) * 1e3)
        await asyncio.gather(*floods)
        return found, replica.rows / seconds

    return _run(story())


def alike(tasks: int, clients: int, *, fair: bool, seconds: float) -> tuple[float, float]:
    """Rows per second, and rows per batch, of tasks with so many busy clients each."""

    async def story() -> tuple[float, float]:
        replica = ModelReplica(1)
        batcher = _batcher(replica, fair=fair, task_rows=1)
        flows = [f"task-{n}" if fair else "" for n in range(tasks)]
        await asyncio.gather(*(_busy(batcher, flow, seconds) for flow in flows for _ in range(clients)))
        return replica.rows / seconds, replica.rows / replica.batches

    return _run(story())


async def _busy(batcher: Batcher, flow: str, seconds: float) -> None:
    """A client that never pauses."""
    loop = asyncio.get_running_loop()
    while loop.time() < seconds:
        try:
            await batcher.answer([("busy", "text")], deadline_s=30, flow=flow)
        except Overloaded:
            await asyncio.sleep(0.01)


def _batcher(replica: ModelReplica, *, fair: bool, task_rows: int) -> Batcher:
    if fair:
        return Batcher(replica, batch_rows=32, queue_rows=512, lanes=2, task_queue_rows=256, task_rows=task_rows)
    return Batcher(replica, batch_rows=32, queue_rows=512, lanes=2)


def _run(story: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story)
