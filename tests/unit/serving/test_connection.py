"""The gateway joins the fleet, notices that it went away, and joins it again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from holdfast.errors import PartUnavailable
from holdfast.serving.batching import Answer, Question
from holdfast.serving.connection import Connection


class TwinFleet:
    """A fleet that a test takes down and brings back."""

    def __init__(self) -> None:
        self.up, self.joined = True, False
        self.connects = self.closes = 0
        self.strange: Exception | None = None

    def alive(self) -> bool:
        return self.up and self.joined

    def connect(self, arguments: dict[str, str]) -> None:
        self.connects += 1
        if self.strange is not None:
            raise self.strange
        if not self.up:
            raise PartUnavailable(part="ray", reason="no head listens")
        self.joined = True

    def close(self) -> None:
        self.closes += 1
        self.joined = False

    async def ask(self, questions: Sequence[Question]) -> Sequence[Answer | str]:
        if not self.alive():
            raise PartUnavailable(part="replica", reason="not connected yet")
        return []

    async def look(self) -> None:
        """Nothing to see."""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_it_is_ready_once_a_replica_answers_and_leaves_when_it_ends() -> None:
    async def story() -> None:
        fleet = TwinFleet()
        connection = Connection(fleet, {}, look_s=0.001)
        assert connection.reason is not None
        async with connection.kept():
            await until(lambda: connection.reason is None)
            assert fleet.connects == 1
        assert not fleet.joined

    asyncio.run(story())


def test_a_fleet_that_goes_away_is_said_so_and_joined_again_when_it_is_back() -> None:
    async def story() -> None:
        fleet = TwinFleet()
        connection = Connection(fleet, {}, look_s=0.001)
        async with connection.kept():
            await until(lambda: connection.reason is None)
            fleet.up = False
            await until(lambda: connection.reason is not None and "no head listens" in connection.reason)
            fleet.up = True
            await until(lambda: connection.reason is None)

    asyncio.run(story())


def test_a_strange_error_while_joining_does_not_end_the_keeper() -> None:
    async def story() -> None:
        fleet = TwinFleet()
        fleet.strange = ValueError("odd")
        connection = Connection(fleet, {}, look_s=0.001)
        async with connection.kept():
            await until(lambda: connection.reason is not None and "odd" in connection.reason)
            fleet.strange = None
            await until(lambda: connection.reason is None)

    asyncio.run(story())
