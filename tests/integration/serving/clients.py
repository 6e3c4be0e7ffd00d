"""Closed-loop clients of a stack, that keep what they sent and what came back."""

from __future__ import annotations

import threading
import time
from collections import Counter

from .stack import Stack

PAUSE_S = 0.25
"""What a client waits before it sends again: a killed process holds its sockets for some milliseconds more."""


class Clients:
    """Use as a context manager. ``retries``: times that a client sends again, after ``PAUSE_S``, what it got no answer to (status 0) or
    503 for."""

    def __init__(self, stack: Stack, name: str, count: int = 4, *, retries: int = 0) -> None:
        self.stack, self.name, self.retries = stack, name, retries
        self.statuses: Counter[int] = Counter()
        self.answers: list[tuple[float, str]] = []
        """When it was sent, and the adapter that answered."""
        self.wrong = self.retried = 0
        self.slowest_s = 0.0
        self.ids: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            request_id, sent = f"{self.name}-{number}-{turn}", time.monotonic()
            status, body = self.stack.predict("tickets", f"text {turn}", request_id)
            for _ in range(self.retries):
                if status in (0, 503):
                    self.retried += 1
                    time.sleep(PAUSE_S)
                    status, body = self.stack.predict("tickets", f"text {turn}", request_id)
            with self._lock:
                self.statuses[status] += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - sent)
                if status == 200:
                    self.ids.append(request_id)
                    self.answers.append((sent, body["adapter_digest"]))
                    self.wrong += body["label"] != body["adapter_digest"]  # the twin engine answers with its own name
