"""A Ray Serve deployment with ``@serve.batch``, in the form of its guide: at its defaults, or as its guides tune it.

python ray_server.py PORT HOME default|tuned

Tuned: batches of 32 without waiting, 128 requests on their way, and by the environment HAProxy and the throughput mode.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from tests.bench.peers.served_model import Answer, ServedModel

TUNED: dict[str, Any] = {"max_batch_size": 32, "batch_wait_timeout_s": 0.0}
TUNED_ONGOING = 128


class Classifier:
    """Asked at ``/predict`` for the model, at ``/null`` for nothing."""

    answer: Any
    nothing: Any

    def __init__(self, home: str) -> None:
        self._model = ServedModel(home)

    async def __call__(self, request: Request) -> Answer:
        """One request."""
        text = (await request.json())["text"]
        found: Answer = await (self.nothing(text) if request.url.path.endswith("/null") else self.answer(text))
        return found


class Default(Classifier):
    """``@serve.batch`` as it comes."""

    @serve.batch  # type: ignore[untyped-decorator]
    async def answer(self, texts: Sequence[str]) -> list[Answer]:
        """A batch."""
        return self._model.answer(texts)

    @serve.batch  # type: ignore[untyped-decorator]
    async def nothing(self, texts: Sequence[str]) -> list[Answer]:
        """A batch."""
        return self._model.nothing(texts)


class Tuned(Classifier):
    """``@serve.batch`` with the settings above."""

    @serve.batch(**TUNED)  # type: ignore[untyped-decorator]
    async def answer(self, texts: Sequence[str]) -> list[Answer]:
        """A batch."""
        return self._model.answer(texts)

    @serve.batch(**TUNED)  # type: ignore[untyped-decorator]
    async def nothing(self, texts: Sequence[str]) -> list[Answer]:
        """A batch."""
        return self._model.nothing(texts)


def main(port: int, home: str, kind: str) -> None:
    """Serve until a signal comes."""
    with tempfile.TemporaryDirectory(prefix="hf-ray-") as folder:  # short: Ray makes sockets below it
        ray.init(
            num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False, logging_level="ERROR",
            _temp_dir=folder, _node_ip_address="127.0.0.1",
        )  # fmt: skip
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        if kind == "tuned":
            app = serve.deployment(Tuned).options(max_ongoing_requests=TUNED_ONGOING, ray_actor_options={"num_cpus": 0.1}).bind(home)
        else:
            app = serve.deployment(Default).options(ray_actor_options={"num_cpus": 0.1}).bind(home)
        serve.run(app, name="peer", route_prefix="/")
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
