"""How the story of the demonstration waits: for parts that are started again, and not for a home that was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from holdfast.errors import BadInput, GateRefused, HoldfastError, TrainingFailed, Unhealthy

LOOK_S = 0.5
Found = TypeVar("Found")


class HomeStopped(Unhealthy):
    """The home was stopped while it was needed: by `holdfast down` elsewhere, or its supervisor was killed.

    Mend: start the demonstration again.
    """


class Patience:
    """Asks until there is an answer, for at most ``patience_s``, as long as the home ``is_up``."""

    def __init__(self, patience_s: float, is_up: Callable[[], bool]) -> None:
        self._patience_s, self._is_up = patience_s, is_up

    def insist(self, ask: Callable[[], Found]) -> Found:
        """Ask until there is an answer: a part that is being started again is no answer, a refusal is one. Raises HomeStopped."""
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return ask()
            except (BadInput, GateRefused, TrainingFailed):
                raise
            except HoldfastError:
                self.check_up()
                if time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_S)

    def check_up(self) -> None:
        """Raises HomeStopped: what no longer runs gives no answer."""
        if not self._is_up():
            raise HomeStopped()
