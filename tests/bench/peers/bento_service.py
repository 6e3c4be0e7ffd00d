"""A BentoML service with batchable methods, at its defaults or as its guides tune it.

bentoml serve tests.bench.peers.bento_service:Default|Tuned; the home in HOLDFAST_BENCH_HOME. Runs in the environment of bentoml.txt.
"""

import os
from typing import Any

import bentoml
from tests.bench.peers.served_model import ServedModel

HOME = os.environ["HOLDFAST_BENCH_HOME"]  # noqa: TID251  (a service takes no arguments)
QUIET: Any = {"logging": {"access": {"enabled": False}}, "metrics": {"enabled": False}, "traffic": {"timeout": 60, "concurrency": 32}}


@bentoml.service(name="default")
class Default:
    """``batchable=True`` and nothing else: batches of up to 100, latency of up to 60 s."""

    def __init__(self) -> None:
        self._model = ServedModel(HOME)

    @bentoml.api(batchable=True)  # type: ignore[untyped-decorator]
    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """A batch."""
        return list(self._model.answer(texts))

    @bentoml.api(batchable=True)  # type: ignore[untyped-decorator]
    def null(self, texts: list[str]) -> list[dict[str, Any]]:
        """A batch."""
        return list(self._model.nothing(texts))


@bentoml.service(name="tuned", **QUIET)
class Tuned:
    """Batches of up to 32; neither access log nor metrics. Of what it thinks will take longer than a second it refuses a part (503)."""

    def __init__(self) -> None:
        self._model = ServedModel(HOME)

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)  # type: ignore[untyped-decorator]
    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """A batch."""
        return list(self._model.answer(texts))

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)  # type: ignore[untyped-decorator]
    def null(self, texts: list[str]) -> list[dict[str, Any]]:
        """A batch."""
        return list(self._model.nothing(texts))
