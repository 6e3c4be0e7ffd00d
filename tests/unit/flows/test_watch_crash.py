"""A monitor process that dies at any point: whoever looks next comes to the same states, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any

import pytest

from holdfast.domain.monitors import MonitorSet
from holdfast.flows.watch import watch
from holdfast.ports import House, UnitOfWork
from holdfast.testing.builders import TASK
from holdfast.testing.streams import a_stream, a_watched_house, send


class Killed(BaseException):
    """The process is gone: nothing catches it."""


class Mortal:
    """Dies at one moment of all that a look does: at reading the log, at opening, before and after committing a transaction."""

    def __init__(self, moment: int) -> None:
        self.left = moment

    def step(self) -> None:
        """One moment passes."""
        if self.left == 0:
            self.left = -1
            raise Killed
        self.left -= 1

    def house(self, house: House) -> House:
        """The same house, used by a process that dies."""
        return replace(house, unit_of_work=lambda: MortalUnit(house.unit_of_work(), self), log=MortalLog(house.log, self))


class MortalLog:
    """A capture log that is read by a process that dies."""

    def __init__(self, log: Any, mortal: Mortal) -> None:
        self._log, self._mortal = log, mortal

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self._mortal.step()
            return getattr(self._log, name)(*args)

        return call


class MortalUnit:
    """One transaction of a process that dies."""

    def __init__(self, inner: UnitOfWork, mortal: Mortal) -> None:
        self._inner, self._mortal = inner, mortal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __enter__(self) -> MortalUnit:
        self._mortal.step()
        self._inner.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._inner.__exit__(kind, error, trace)

    def commit(self) -> None:
        """See the port."""
        self._mortal.step()
        self._inner.commit()
        self._mortal.step()


def _told(house: House, digest: Any, look: Callable[[House], None]) -> MonitorSet:
    """Quiet traffic, then a change, with a look after each part and one at the end that is never disturbed."""
    for seed, shift in ((1, 0.0), (2, 0.0), (3, 3.0)):
        send(house, a_stream(90, seed, first_seq=seed, digest=digest, shift=shift, share_right=0.9 - shift / 5))
        look(house)
    seen = watch(house, TASK)
    assert seen is not None
    return seen


def _alarms(seen: MonitorSet) -> dict[str, tuple[str, int, float, int]]:
    return {r.monitor: (r.status, r.event_count, r.log_evidence, r.onset_seq) for r in seen.readings}


def test_a_process_killed_at_any_moment_gives_the_same_alarms_bit_for_bit() -> None:
    house, digest = a_watched_house()
    whole = _told(house, digest, lambda h: None if watch(h, TASK) else pytest.fail("no champion"))
    assert {name for name, told in _alarms(whole).items() if told[0] == "alarm"} >= {"embedding", "quality"}
    deaths, moment = 0, 0
    while True:
        house, digest = a_watched_house()
        mortal = Mortal(moment)

        def look(house: House, mortal: Mortal = mortal) -> None:
            try:
                watch(mortal.house(house), TASK)
            except Killed:
                watch(house, TASK)  # the next process

        after = _told(house, digest, look)
        assert (after.states, _alarms(after)) == (whole.states, _alarms(whole)), f"killed at moment {moment}"
        if mortal.left >= 0:
            break
        deaths, moment = deaths + 1, moment + 1
    assert deaths >= 18


def test_captures_sent_again_or_out_of_the_order_of_their_time_change_nothing() -> None:
    one, digest = a_watched_house()
    rows = a_stream(120, 4, digest=digest, shift=2.0)
    send(one, rows)
    other, _ = a_watched_house()
    late = [replace(r, capture=replace(r.capture, captured_at=r.capture.captured_at - timedelta(hours=n % 7))) for n, r in enumerate(rows)]
    for part in (late[:50], late[:50], late[20:80], late):
        send(other, part)
        watch(other, TASK)
    first, second = watch(one, TASK), watch(other, TASK)
    assert first is not None and second is not None
    assert (first.states, _alarms(first)) == (second.states, _alarms(second))
