"""Holdfast's own replica, in which one adapter is answered for without the engine: what is left is the cost of serving.

Everything else is what it always is: the adapter is loaded and proved, its touches are looked for, its captures are stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray import serve
from tests.bench.peers.served_model import NULL_CONFIDENCE, NULL_LABEL

from holdfast.bootstrap.deployment import deployment_options
from holdfast.domain.captures import Prediction
from holdfast.ports import Answer, Question
from holdfast.serving.app import Replica
from holdfast.settings import Settings

WIDTH = 384
OwnReplica: Any = Replica.func_or_class  # type: ignore[attr-defined]  # the decorator made a deployment of it


class NullBeside:
    """An engine that answers at once for one adapter."""

    def __init__(self, engine: Any, digest: str) -> None:
        self._engine, self._digest = engine, digest
        prediction = Prediction(label=NULL_LABEL, confidence=NULL_CONFIDENCE)
        self._nothing = Answer(prediction=prediction, embedding=np.zeros(WIDTH, np.float16).tolist(), tokens=(16, 16))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def answer(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        """Batches are asked for one task at a time here."""
        if all(question.digest == self._digest for question in questions):
            return (self._nothing,) * len(questions)
        found: tuple[Answer, ...] = self._engine.answer(questions)
        return found


@serve.deployment(name="Replica", logging_config={"log_level": "WARNING", "enable_access_log": False})
class BenchReplica(OwnReplica):  # type: ignore[misc]
    """With the engine above."""

    def __init__(self, settings_json: str) -> None:
        super().__init__(settings_json)
        digest = (Settings.model_validate_json(settings_json).folder / "null-digest").read_text()
        self._worker._engine = NullBeside(self._worker._engine, digest)


def build(arguments: Mapping[str, str]) -> Any:
    """The application."""
    settings = Settings.model_validate_json(arguments["settings"])
    bound: Any = BenchReplica
    return bound.options(**deployment_options(settings.serving)).bind(arguments["settings"])
