"""The Serve application with the echo engine in place of the real one: fast to start, answers name the adapter that gave them.

Imported by the gateway under test and by Ray's workers, which find it through ``PYTHONPATH``.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import serve

from holdfast.backends.sql import SqlDatabase
from holdfast.bootstrap import now
from holdfast.bootstrap.deployment import deployment_options
from holdfast.domain.captures import Prediction
from holdfast.domain.ids import AdapterDigest
from holdfast.errors import AdapterRefused
from holdfast.serving.replica import ReplicaWorker, WireQuestion, WireReply
from holdfast.settings import Settings
from holdfast.testing.twins import EchoEngine


class AnyFolder:
    """An adapter store that has every adapter but those named `bad`."""

    def folder(self, digest: AdapterDigest) -> Path:
        """See the port."""
        if "bad" in digest:
            raise AdapterRefused(folder=digest, reason="its bytes changed")
        return Path("/nowhere")


def says_its_name(digest: AdapterDigest, text: str) -> Prediction:
    """The label is the adapter's own digest, so that a wrong adapter cannot hide."""
    return Prediction(label=str(digest), confidence=0.75)


@serve.deployment(name="Replica", logging_config={"log_level": "WARNING", "enable_access_log": False})
class TwinReplica:
    """As holdfast.serving.app.Replica, on the echo engine; tells its process id on request."""

    def __init__(self, settings_json: str) -> None:
        settings = Settings.model_validate_json(settings_json)
        (settings.folder / "run" / f"replica-{os.getpid()}").touch()
        self._id: str = serve.get_replica_context().replica_id.unique_id
        self._worker = ReplicaWorker(
            replica_id=f"twin-{uuid.uuid4().hex[:8]}",
            unit_of_work=SqlDatabase(settings.database).unit_of_work,
            adapters=AnyFolder(),
            engine=EchoEngine(says_its_name),
            clock=now,
        )
        self._worker.start(settings.serving.refresh_s)

    async def answer(self, questions: Sequence[WireQuestion], *, avoid: Sequence[str] = ()) -> WireReply:
        """See the real one."""
        return self._id, self._worker.answer(questions)


def build(arguments: Mapping[str, str]) -> Any:
    """The application."""
    settings = Settings.model_validate_json(arguments["settings"])
    bound: Any = TwinReplica
    return bound.options(**deployment_options(settings.serving)).bind(arguments["settings"])
