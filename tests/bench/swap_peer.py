"""What Ray Serve itself offers for changing the adapter of a deployment: a new `user_config`, applied by `reconfigure`.

Run as a process of its own by bench_swap.py: a local Ray, one replica with the same engine behind Serve's own HTTP proxy. It reads a
digest a line from its input, applies it as documented (deploy the application again with another `user_config`; the replica is kept),
and writes the seconds that took.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import holdfast
from holdfast.backends.ray_fleet import client_environment, ensure_token
from holdfast.settings import Settings

DRIVER = """
import sys, tempfile, time
from pathlib import Path
import ray
from ray import serve
from starlette.requests import Request

port, folder, first, scratch = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]

@serve.deployment(num_replicas=1, max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.1})
class Peer:
    def __init__(self):
        import threading
        from holdfast.backends.adapter_store import FolderAdapterStore
        from holdfast.backends.lora import LoraEngine
        from holdfast.settings import MINILM
        self.engine, self.store = LoraEngine({"minilm": (MINILM.path, MINILM.sha256)}, 1), FolderAdapterStore(folder)
        self.one, self.digest, self.generation = threading.Lock(), None, 0

    def reconfigure(self, config):
        self.engine.load(config["digest"], self.store.folder(config["digest"]))
        self.digest, self.generation = config["digest"], config["generation"]

    def work(self, text):
        from holdfast.ports import Question
        with self.one:
            digest, generation = self.digest, self.generation
            answer = self.engine.answer([Question(digest=digest, text=text)])[0]
        return {"label": answer.prediction.label, "adapter_digest": digest, "generation": generation}

    async def __call__(self, request: Request):
        import asyncio
        return await asyncio.to_thread(self.work, (await request.json())["text"])

ray.init(address="local", num_cpus=2, include_dashboard=False, _temp_dir=scratch, log_to_driver=False, object_store_memory=80 << 20)
serve.start(http_options={"host": "127.0.0.1", "port": port})

def apply(digest, generation):
    began = time.perf_counter()
    serve.run(Peer.options(user_config={"digest": digest, "generation": generation}).bind(), name="peer", route_prefix="/")
    print(f"applied {time.perf_counter() - began}", flush=True)

apply(first, 1)
for number, line in enumerate(sys.stdin):
    apply(line.strip(), number + 2)
serve.shutdown()
ray.shutdown()
"""


class Peer:
    """The peer's process; use as a context manager."""

    def __init__(self, home: Path, adapters: Path, *, port: int, first: str) -> None:
        settings = Settings(home=home)
        (home / "run").mkdir(parents=True, exist_ok=True)
        ensure_token(settings)
        self._scratch = tempfile.TemporaryDirectory(prefix="hfr-")
        kept = {name: value for name, value in client_environment(settings).items() if not name.startswith("RAY_SERVE_")}
        environment = os.environ | kept | {"PYTHONPATH": str(Path(holdfast.__file__).parents[1])}  # noqa: TID251  (for the child)
        command = [sys.executable, "-c", DRIVER, str(port), str(adapters), first, self._scratch.name]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Peer:
        self._applied()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(120)
        self._scratch.cleanup()

    def swap(self, digest: str) -> float:
        """Put another adapter in; the seconds until Ray Serve called it applied."""
        assert self._process.stdin is not None
        print(digest, file=self._process.stdin, flush=True)
        return self._applied()

    def _applied(self) -> float:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("applied "):
                return float(line.split()[1])
        raise RuntimeError(f"the peer ended: {json.dumps(self._process.poll())}")
