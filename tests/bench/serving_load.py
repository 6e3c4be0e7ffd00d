"""What the serving benches share: adapters on the real base, closed-loop HTTP clients, CPU time of process trees."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from holdfast.backends.adapter_store import FolderAdapterStore
from holdfast.domain.adapters import REFERENCE_NAME
from holdfast.domain.ids import AdapterDigest, SnapshotDigest, TaskName
from holdfast.domain.retraining import TrainingPlan
from holdfast.domain.tasks import LoraSpec
from holdfast.settings import MINILM
from holdfast.testing.adapter_folders import write_reference
from holdfast.testing.builders import an_adapter
from holdfast.testing.traffic import stream

LABEL_COUNT = 8


def make_adapters(scratch: Path, store: FolderAdapterStore, count: int) -> list[AdapterDigest]:
    """Put ``count`` LoRA adapters (rank 8, all linears of the last three layers, random weights) into a store.

    Labels begin with the number of their adapter, so that an answer by a wrong one shows.
    """
    import torch

    from holdfast.backends.lora.engine import LoraEngine
    from holdfast.backends.lora.files import FINGERPRINT_NAME, finish_adapter, write_json
    from holdfast.backends.lora.head import Head
    from holdfast.backends.lora.lora_format import LoraWeights, start_lora
    from holdfast.backends.lora.scoring import Weights, write_weights

    torch.manual_seed(0)
    engine = LoraEngine({"minilm": (MINILM.path, MINILM.sha256)}, 1)
    base, spec = engine.base("minilm"), LoraSpec(rank=8, last_layers=3)
    lora, config = start_lora(base, spec, 0)
    made = []
    for i in range(count):
        labels = tuple(f"{i}:{n}" for n in range(LABEL_COUNT))
        plan = TrainingPlan(
            key="k", task=TaskName(f"task-{i}"), base="minilm", base_digest=base.digest, labels=labels, max_tokens=128, rungs=("lora",),
            lora=spec, seed=0, snapshot_digest=SnapshotDigest("s"), champion_digest=None,
        )  # fmt: skip
        moved = {name: tensor + 0.02 * torch.randn(tensor.shape) for name, tensor in lora.tensors.items()}
        head = Head(torch.randn(LABEL_COUNT, base.hidden), torch.zeros(LABEL_COUNT))
        here = scratch / str(i)
        here.mkdir(parents=True)
        digest = finish_adapter(here, write_weights(here, Weights("lora", head, LoraWeights(moved, lora.scale), config), plan))
        write_json(here / FINGERPRINT_NAME, engine.fingerprint(engine.read(here)))
        write_reference(here / REFERENCE_NAME, an_adapter().reference)
        store.add(here)
        made.append(digest)
    return made


def texts(count: int) -> list[str]:
    """Synthetic tickets, seeded."""
    return [ticket.text for ticket in stream(0, count, None)]


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer, with the instants (``time.perf_counter``) at which it was asked for and had."""

    sent: float
    received: float
    label: str
    digest: str
    generation: int


@dataclass(slots=True)
class Load:
    """What closed-loop clients saw."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0
    answers: list[Seen] = field(default_factory=list)

    def add(self, other: Load) -> None:
        """Join with another run."""
        self.seconds += other.seconds
        self.latencies_ms += other.latencies_ms
        self.failed += other.failed

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.latencies_ms) / self.seconds

    def percentile(self, share: float) -> float:
        """Of the latencies, ms."""
        return float(np.percentile(self.latencies_ms, share))


async def drive(port: int, key: str, *, tasks: Sequence[str], lines: Sequence[str], clients: int, count: int) -> Load:
    """``count`` requests from ``clients`` closed-loop clients with a connection each; every client turns through the tasks."""
    load, left = Load(), iter(range(count))
    began = time.perf_counter()
    await asyncio.gather(*(_client(port, key, (tasks, lines), left=left, load=load) for _ in range(clients)))
    load.seconds = time.perf_counter() - began
    return load


async def _client(port: int, key: str, traffic: tuple[Sequence[str], Sequence[str]], *, left: Iterable[int], load: Load) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    tasks, lines = traffic
    chance = random.Random(id(writer))
    for number in left:
        body = json.dumps({"text": lines[number % len(lines)]}).encode()
        task, sent = tasks[chance.randrange(len(tasks))], time.perf_counter()
        head = f"POST /v1/tasks/{task}/predict HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        status, raw = await _answer(reader)
        if status == 200:
            received, answer = time.perf_counter(), json.loads(raw)
            load.latencies_ms.append((received - sent) * 1e3)
            seen = Seen(sent, received, answer["label"], answer.get("adapter_digest", ""), answer.get("generation", 0))
            load.answers.append(seen)
        else:
            load.failed += 1
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ")[1])
    if "transfer-encoding: chunked" not in head:
        return status, await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return status, b"".join(parts)


def cpu_seconds(pids: Iterable[int], *, only: str = "") -> float:
    """CPU time so far of processes and everything below them; of those alone whose title holds ``only``, where given."""
    total = 0.0
    for pid in pids:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            try:
                if only in " ".join(process.cmdline()):
                    times = process.cpu_times()
                    total += times.user + times.system
            except psutil.Error:
                continue
    return total
