"""The traffic of a story: tickets sent at a steady rate over HTTP by a few clients, and labels that come late.

A request is sent again under the same request id until it is answered; it counts as failed only when a minute of tries has
brought no answer. Nothing here knows what the loop is doing.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from holdfast.cli.demo_world import Ticket, World
from holdfast.client import Client
from holdfast.domain.answers import row_score
from holdfast.domain.labelling import read_answer
from holdfast.errors import HoldfastError

LABEL_SHARE = 0.6
LABEL_DELAY = (100, 200)
"""Events that pass before a label is known: somebody has to look at the ticket first."""
PATIENCE_S = 60.0
CLIENTS = 4
LABELS_A_CALL = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One ticket with its answer."""

    ticket: Ticket
    label: str
    """As predicted; a canonical text."""
    score: float
    """How right it is in the metric of the task, 0..1."""
    adapter_digest: str
    generation: int
    answered_at: datetime
    latency_ms: float
    """From the first try to the answer, as the client felt it."""
    tries: int


class Traffic:
    """Sends tickets until stopped. ``answered`` and ``failed`` may be read from any thread."""

    def __init__(self, client: Client, task: str, world: World, *, run: str, per_second: float) -> None:
        self._client, self._task, self._world, self._run = client, task, world, run
        self._pause = 1.0 / per_second
        self._lock, self._halt, self._vain = threading.Lock(), threading.Event(), threading.Event()
        self._answered: list[Answered] = []
        self._failed = 0
        self._due = 0.0
        self._threads = [threading.Thread(target=self._send_all, name=f"client-{n}", daemon=True) for n in range(CLIENTS)]

    def start(self) -> None:
        """Begin to send."""
        self._due = time.monotonic()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no further ticket; wait until those under way are answered or failed."""
        self._halt.set()
        for thread in self._threads:
            thread.join(PATIENCE_S + 30)

    def give_up(self) -> None:
        """Try no longer what was not answered: nobody is there who could."""
        self._vain.set()

    @property
    def answered(self) -> tuple[Answered, ...]:
        """In the order of the answers."""
        with self._lock:
            return tuple(self._answered)

    @property
    def answered_count(self) -> int:
        """How many were answered."""
        return len(self._answered)

    @property
    def failed_count(self) -> int:
        """Requests that a minute of tries did not get answered."""
        return self._failed

    def since(self, position: int) -> Sequence[Answered]:
        """Answers from a position of ``answered`` on."""
        with self._lock:
            return self._answered[position:]

    def _send_all(self) -> None:
        while not self._halt.is_set():
            with self._lock:
                ticket = next(self._world.tickets, None)
                self._due = max(self._due + self._pause, time.monotonic() - self._pause)  # what was missed is not made up for
                wait = self._due - time.monotonic()
            if ticket is None or (wait > 0 and self._halt.wait(wait)):
                return
            self._send(ticket)

    def _send(self, ticket: Ticket) -> None:
        began, tries = time.monotonic(), 0
        while time.monotonic() - began < PATIENCE_S and not self._vain.is_set():
            tries += 1
            try:
                reply = self._client.predict(self._task, ticket.text, request_id=f"{self._run}-{ticket.index:06d}")
                label = self._said(reply, ticket.text)
            except HoldfastError:
                self._vain.wait(min(2.0, 0.1 * 2 ** min(tries, 5)) * random.uniform(0.7, 1.3))
                continue
            done = Answered(
                ticket=ticket, label=label, score=row_score(label, ticket.label, self._world.contract.metric),
                adapter_digest=reply["adapter_digest"], generation=reply["generation"], answered_at=datetime.now(UTC),
                latency_ms=1000 * (time.monotonic() - began), tries=tries,
            )  # fmt: skip
            with self._lock:
                self._answered.append(done)
            return
        with self._lock:
            self._failed += 1

    def _said(self, reply: Mapping[str, object], text: str) -> str:
        """The canonical text of an answer of any kind."""
        given = next(reply[name] for name in ("label", "labels", "spans") if name in reply)
        return read_answer(self._world.contract.kind, given, text)


class LateLabels:
    """Posts the right label of a share of the tickets, a hundred events and more after their answer."""

    def __init__(self, client: Client, task: str, traffic: Traffic, *, run: str, seed: int) -> None:
        self._client, self._task, self._traffic, self._run, self._seed = client, task, traffic, run, seed
        self._halt = threading.Event()
        self._waiting: list[tuple[int, Answered]] = []
        self._read = 0
        self.sent_count = 0
        self._thread = threading.Thread(target=self._post_all, name="labels", daemon=True)

    def start(self) -> None:
        """Begin to label."""
        self._thread.start()

    def stop(self) -> None:
        """Label no further."""
        self._halt.set()
        self._thread.join(30)

    def _post_all(self) -> None:
        while not self._halt.wait(0.3):
            for one in self._traffic.since(self._read):
                self._read += 1
                chance = random.Random(f"{self._seed} {one.ticket.index}")
                if chance.random() < LABEL_SHARE:
                    self._waiting.append((self._read + chance.randint(*LABEL_DELAY), one))
            due = [one for at, one in self._waiting if at <= self._read]
            for start in range(0, len(due), LABELS_A_CALL):
                self._post(due[start : start + LABELS_A_CALL])

    def _post(self, due: list[Answered]) -> None:
        """What was refused (the gateway may be on its way up) is sent again."""
        labels = [{"request_id": f"{self._run}-{one.ticket.index:06d}", "label": one.ticket.label, "source": "agents"} for one in due]
        try:
            self._client.give_feedback([label | {"task": self._task} for label in labels])
        except HoldfastError:
            return
        posted = {id(one) for one in due}
        self._waiting = [(at, one) for at, one in self._waiting if id(one) not in posted]
        self.sent_count += len(due)
