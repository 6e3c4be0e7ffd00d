"""The Serve application with the echo engine in place of the real one: fast to start, answers name the adapter that gave them.

Imported by the gateway under test and by Ray's workers, which find it through ``PYTHONPATH``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import serve

from holdfast import bootstrap
from holdfast.backends.sql import SqlDatabase
from holdfast.bootstrap import now
from holdfast.bootstrap.deployment import deployment_options
from holdfast.domain.captures import Prediction
from holdfast.domain.ids import AdapterDigest
from holdfast.errors import AdapterRefused
from holdfast.serving.replica import ReplicaWorker, WireAnswer, WireQuestion, WireReply
from holdfast.serving.scaling import BUSY
from holdfast.settings import Settings
from holdfast.testing.twins import EchoEngine

SLOW_S = 0.3


class AnyFolder:
    """An adapter store that has every adapter but those named `bad`."""

    def folder(self, digest: AdapterDigest) -> Path:
        """See the port."""
        if "bad" in digest:
            raise AdapterRefused(folder=digest, reason="its bytes changed")
        return Path("/nowhere")


class PlantedEngine(EchoEngine):
    """Fails proof and loading of what the file `run/broken-PID` of its process names, as long as it lies there."""

    def __init__(self, run: Path) -> None:
        super().__init__(says_its_name)
        self._file = run / f"broken-{os.getpid()}"

    def load(self, digest: AdapterDigest, folder: Path) -> None:
        """See the port."""
        self._look()
        super().load(digest, folder)

    def prove(self, digest: AdapterDigest) -> None:
        """See the port."""
        self._look()
        super().prove(digest)

    def _look(self) -> None:
        digest = self._file.read_text() if self._file.exists() else None
        self.broken = self.refusing = {digest: "its head is another one"} if digest else {}


def says_its_name(digest: AdapterDigest, text: str) -> Prediction:
    """The label is the adapter's own digest, so that a wrong adapter cannot hide."""
    return Prediction(label=str(digest), confidence=0.75)


@serve.deployment(name="Replica", logging_config={"log_level": "WARNING", "enable_access_log": False})
class TwinReplica:
    """As holdfast.serving.app.Replica, on the echo engine; tells its process id on request."""

    def __init__(self, settings_json: str) -> None:
        settings = Settings.model_validate_json(settings_json)
        self._run = settings.folder / "run"
        (self._run / f"replica-{os.getpid()}").touch()
        self._engine = PlantedEngine(self._run)
        self._id: str = serve.get_replica_context().replica_id.unique_id
        self._worker = ReplicaWorker(
            replica_id=f"twin-{os.getpid()}",
            unit_of_work=SqlDatabase(settings.database).unit_of_work,
            adapters=AnyFolder(),
            engine=self._engine,
            clock=now,
            prove_s=settings.serving.prove_s,
        )
        self._worker.start(settings.serving.refresh_s)
        self._batch_count = 0
        self._way_in = bootstrap.listener(settings, self._answers, ray.util.get_node_ip_address())

    async def answer(self, questions: Sequence[WireQuestion], *, avoid: Sequence[str] = ()) -> WireReply:
        """See the real one."""
        return self._id, await self._answers(questions)

    async def where(self) -> tuple[str, str, int]:
        """See the real one."""
        return self._id, *await self._way_in.address()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """See the real one."""
        return {BUSY: float(self._batch_count)}

    async def __del__(self) -> None:
        """See the real one."""
        await self._way_in.drain()

    async def _answers(self, questions: Sequence[WireQuestion]) -> list[WireAnswer]:
        """Leaves a file when it is asked for what it does not hold yet, though nothing was broken on it.

        As long as the file `run/slow` lies there a micro-batch takes ``SLOW_S``, and who answered one leaves a file.
        """
        if {digest for digest, _ in questions} - self._engine.loaded() and not self._engine.broken:
            (self._run / f"incomplete-{os.getpid()}").touch()
        self._batch_count += 1
        try:
            if questions and (self._run / "slow").exists():
                (self._run / f"answered-slowly-{os.getpid()}").touch()
                await asyncio.sleep(SLOW_S)
            return self._worker.answer(questions)
        finally:
            self._batch_count -= 1

    def check_health(self) -> None:
        """See the real one."""
        if (reason := self._worker.ailing()) is not None:
            raise RuntimeError(reason)


def build(arguments: Mapping[str, str]) -> Any:
    """The application."""
    settings = Settings.model_validate_json(arguments["settings"])
    bound: Any = TwinReplica
    return bound.options(**deployment_options(settings.serving)).bind(arguments["settings"])
