"""The Ray Serve application: one deployment, `Replica`, that many micro-batches reach by handle and no HTTP reaches at all.

Importing this module imports Ray; only the gateway's connecting thread and the replicas do.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray import serve

from holdfast import bootstrap
from holdfast.bootstrap.deployment import deployment_options
from holdfast.serving.replica import ReplicaWorker, WireAnswer, WireQuestion, WireReply
from holdfast.serving.scaling import BUSY
from holdfast.settings import Settings


@serve.deployment(name="Replica", logging_config={"log_level": "WARNING", "enable_access_log": False})
class Replica:
    """One copy of the base and every wanted adapter on it. Ready only when it has tried to load each of them."""

    def __init__(self, settings_json: str) -> None:
        settings = Settings.model_validate_json(settings_json)
        parts = bootstrap.for_replica(settings)
        self._id: str = serve.get_replica_context().replica_id.unique_id
        self._worker = ReplicaWorker(
            replica_id=f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}",
            unit_of_work=parts.unit_of_work,
            adapters=parts.adapters,
            engine=parts.engine,
            clock=parts.clock,
            prove_s=settings.serving.prove_s,
        )
        self._worker.start(settings.serving.refresh_s)
        self._way_in = bootstrap.listener(settings, self._answers, ray.util.get_node_ip_address())
        self._passes, self._batch_count = bootstrap.passes(settings), 0
        self._threads = ThreadPoolExecutor(max_workers=self._passes, thread_name_prefix="engine")

    async def answer(self, questions: Sequence[WireQuestion], *, avoid: Sequence[str] = ()) -> WireReply:
        """Answer a micro-batch, and say who answers: whoever gets no answer here can ask elsewhere. ``avoid`` is read by the router."""
        return self._id, await self._answers(questions) if questions else []

    async def where(self) -> tuple[str, str, int]:
        """Id, host and port at which gateways get answers without Ray."""
        return self._id, *await self._way_in.address()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray asks, and scales by it (`scaling`)."""
        return {BUSY: self._batch_count / self._passes}

    async def __del__(self) -> None:
        """Ray calls it when the replica is to end in good order: what is under way is answered first."""
        await self._way_in.drain()

    async def _answers(self, questions: Sequence[WireQuestion]) -> list[WireAnswer]:
        """The engine runs in threads of its own, so that health checks are answered meanwhile; as many batches at a time as passes."""
        self._batch_count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._worker.answer, questions)
        finally:
            self._batch_count -= 1

    def check_health(self) -> None:
        """Raises when this replica no longer follows the assignments or has nothing left that passes its proof; Serve replaces it."""
        if (reason := self._worker.ailing()) is not None:
            raise RuntimeError(reason)


def build(arguments: Mapping[str, str]) -> Any:
    """The application. ``arguments``: `settings`, the settings as JSON."""
    settings = Settings.model_validate_json(arguments["settings"])
    bound: Any = Replica
    return bound.options(**deployment_options(settings.serving)).bind(arguments["settings"])
