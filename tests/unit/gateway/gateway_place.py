"""A gateway over HTTP in front of a replica in the same process, with its twins."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from holdfast.domain.ids import base_asked
from holdfast.domain.tasks import TaskContract
from holdfast.flows.record import record_feedback
from holdfast.serving.__main__ import watch
from holdfast.serving.batching import Answer, Batcher, Question
from holdfast.serving.capture_buffer import CaptureBuffer
from holdfast.serving.gateway import GatewayState, make_app
from holdfast.serving.label_buffer import LabelBuffer
from holdfast.serving.metrics import GatewayMetrics
from holdfast.serving.result_cache import ResultCache
from holdfast.serving.routing_feed import RoutingFeed
from holdfast.testing.clock import NOON, SteppedClock
from holdfast.testing.memory import MemoryDatabase
from holdfast.testing.record_builders import TASK, a_contract, a_digest, a_replica_report, a_route, a_version

KEY = "hf_test"
PATH = f"/v1/tasks/{TASK}/predict"
FIRST, SECOND, THIRD = a_digest("first"), a_digest("second"), a_digest("third")
BASES = {"minilm": "sha256:" + "b" * 64}
WORDS_READ = 8
"""The twin replica reads so many words."""


class Place:
    """Task `tickets`: version 1 is champion, 2 challenger, 3 exists and no replica holds it."""

    def __init__(self, folder: Path, *, ask: Any = None, share_canary: float = 0.5, shadow: bool = False, **given: Any) -> None:
        self.database, self.clock = MemoryDatabase(), SteppedClock(NOON)
        self.log = self.database.log()
        self.route = a_route(challenger=SECOND, share_canary=share_canary, shadow=shadow, generation=4)
        self.contract(a_contract(**given.pop("contract", {})))
        with self.database.unit_of_work() as work:
            work.keys.add(name="me", key_hash=hashlib.sha256(KEY.encode()).hexdigest(), created_at=NOON)
            for number, digest in enumerate((FIRST, SECOND, THIRD), start=1):
                work.versions.put(a_version(digest=digest, number=number))
            work.replicas.report(a_replica_report(ready=(FIRST, SECOND), reported_at=NOON))
            work.assignments.publish(self.route)
            work.commit()
        self.feed = RoutingFeed(self.database.unit_of_work, refresh_s=60, bases=BASES, clock=self.clock)
        self.feed.look()
        self.buffer = CaptureBuffer(folder / "spool", self.log.append, segment_rows=100)
        deliver = functools.partial(record_feedback, self.database.unit_of_work, self.log)
        self.labels = LabelBuffer(folder / "labels", deliver, self.clock, wait_s=60)
        self.reason: str | None = None
        self.asked: list[Question] = []
        deadline_s, cache_bytes = given.pop("deadline_s", 5.0), given.pop("cache_bytes", 0)
        known = {"batch_rows": 32, "queue_rows": 64, "lanes": 2} | given
        self.state = GatewayState(
            feed=self.feed, batcher=Batcher(ask or self.ask, **known), buffer=self.buffer, labels=self.labels, clock=self.clock,
            metrics=GatewayMetrics(), deadline_s=deadline_s, ready=lambda: self.reason, cache=ResultCache(cache_bytes),
        )  # fmt: skip
        watch(self.state)
        self.client = TestClient(make_app(self.state), headers={"authorization": f"Bearer {KEY}"}, client=("127.0.0.1", 1))

    def contract(self, contract: TaskContract) -> None:
        """Put a contract; the feed has it after a look."""
        with self.database.unit_of_work() as work:
            work.contracts.put(contract, NOON)
            work.commit()

    async def ask(self, questions: Sequence[Question]) -> list[Answer | str]:
        """The label is the adapter's digest; a word is a token."""
        self.asked += questions
        found: list[Answer | str] = []
        for digest, text in questions:
            count = len(text.split())
            label = "" if base_asked(digest) is not None else digest  # type: ignore[arg-type]
            found.append((label, 0.875, b"\x00\x3c" * 8, (count, min(count, WORDS_READ)), ()))
        return found

    def captures(self) -> dict[str, Any]:
        """Captures by id, after the spool was emptied."""
        self.buffer.drain()
        return {c.capture_id: c for c in self.log.after(TASK, 0)}

    def figure(self, line: str) -> float:
        """The value of a line of /metrics; 0 when there is none."""
        found = [x for x in self.client.get("/metrics").text.splitlines() if x.startswith(line + " ")]
        return float(found[0].rsplit(" ", 1)[1]) if found else 0.0


def refusal(response: Any) -> tuple[int, str]:
    """Status and code of a problem, after a look at its shape."""
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert set(body) - {"request_id"} == {"type", "title", "status", "detail", "code", "mend"}
    assert body.get("request_id") == response.headers.get("x-request-id")
    assert body["status"] == response.status_code
    assert body["detail"]
    assert body["mend"]
    return response.status_code, body["code"]
