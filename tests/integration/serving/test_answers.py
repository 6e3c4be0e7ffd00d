"""The gateway's batcher over a real engine: whatever is mixed, unloaded, lost or given up, an answer is that of its adapter run alone."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.backends.lora.engine import LoraEngine
from holdfast.backends.lora.files import FINGERPRINT_NAME, finish_adapter, write_json
from holdfast.backends.lora.head import Head
from holdfast.backends.lora.lora_format import LoraWeights, start_lora
from holdfast.backends.lora.scoring import Weights, write_weights
from holdfast.domain.ids import AdapterDigest, TaskName
from holdfast.domain.tasks import LoraSpec
from holdfast.errors import DeadlinePassed, Overloaded, PartUnavailable
from holdfast.ports import Question
from holdfast.serving.batching import Answer, Batcher
from holdfast.serving.batching import Question as Asked
from holdfast.serving.replica import ReplicaWorker
from holdfast.testing.clock import NOON
from holdfast.testing.memory import MemoryDatabase
from holdfast.testing.record_builders import a_plan
from holdfast.testing.tiny_model import WORDS, make_tiny_model

TASK_COUNT, CALLER_COUNT, ANSWER_COUNT = 64, 40, 20_000
TEXT_COUNT = 16
"""Texts of each task: every adapter is run alone on each of them first."""
TOLERANCE = 2e-3
"""Of confidences and of float16 embeddings: batches of another shape round differently. A label must be the same."""
Truth = Mapping[Asked, Answer]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Folders of 64 adapters, some of them heads alone, and a task's texts."""

    base: tuple[str, str]
    folders: Mapping[AdapterDigest, Path]
    texts: Mapping[AdapterDigest, tuple[str, ...]]

    def engine(self) -> LoraEngine:
        return LoraEngine({"tiny": self.base}, threads=1)

    def folder(self, digest: AdapterDigest) -> Path:
        return self.folders[digest]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    base = make_tiny_model(tmp_path_factory.mktemp("tiny"))
    engine, chance = LoraEngine({"tiny": base}, threads=1), random.Random(7)
    folders = dict(make_adapter(tmp_path_factory.mktemp("adapters") / str(n), engine, n) for n in range(TASK_COUNT))
    texts = {d: tuple(" ".join(chance.choices(WORDS, k=chance.choice((1, 3, 8, 40)))) for _ in range(TEXT_COUNT)) for d in folders}
    return Fleet(base, folders, texts)


@pytest.fixture(scope="module")
def truth(fleet: Fleet) -> Truth:
    """What each adapter says to each of its texts, alone in an engine of its own, one text at a time."""
    found: dict[Asked, Answer] = {}
    for digest, folder in fleet.folders.items():
        engine = fleet.engine()
        engine.load(digest, folder)
        for text in fleet.texts[digest]:
            (one,) = engine.answer([Question(digest=digest, text=text)])
            raw = np.asarray(one.embedding, dtype="<f2").tobytes()
            found[digest, text] = (one.prediction.label, one.prediction.confidence, raw, one.tokens, one.parts)
    return found


def make_adapter(folder: Path, engine: LoraEngine, number: int) -> tuple[AdapterDigest, Path]:
    """A finished adapter with random weights and labels that no other has; every third is a head alone."""
    base, chance = engine.base("tiny"), torch.Generator().manual_seed(number)
    spec = LoraSpec(rank=4, alpha=8.0, last_layers=1 + number % 2)
    labels = tuple(f"{number}-{name}" for name in "abc")
    plan = a_plan(task=TaskName(f"task-{number}"), base="tiny", base_digest=base.digest, labels=labels, max_tokens=32, lora=spec)
    head = Head(torch.randn(3, base.hidden, generator=chance), torch.randn(3, generator=chance))
    weights = Weights("head", head)
    if number % 3:
        lora, config = start_lora(base, spec, number)
        moved = {name: tensor + 0.3 * torch.randn(tensor.shape, generator=chance) for name, tensor in lora.tensors.items()}
        weights = Weights("lora", head, LoraWeights(moved, lora.scale), config)
    folder.mkdir(parents=True)
    digest = finish_adapter(folder, write_weights(folder, weights, plan))
    write_json(folder / FINGERPRINT_NAME, engine.fingerprint(engine.read(folder)))
    return digest, folder


class Unsteady:
    """A replica as the gateway sees it: real, in a thread of its own, and now and then lost, hung, or short of an adapter."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.engine, self.counts = fleet.engine(), Counter[str]()
        self._worker = ReplicaWorker(
            replica_id="r", unit_of_work=MemoryDatabase().unit_of_work, adapters=fleet, engine=self.engine, clock=lambda: NOON
        )
        self._chance, self._digests = random.Random(seed), list(fleet.folders)
        self._thread, self._evictor = ThreadPoolExecutor(2), ThreadPoolExecutor(1)

    async def __call__(self, questions: Sequence[Asked]) -> Sequence[Answer | str]:
        fate = self._chance.random()
        if fate < 0.03:
            self.counts["lost before"] += 1
            raise PartUnavailable(part="replica", reason="it was killed")
        if fate < 0.04:
            self.counts["hung"] += 1
            await asyncio.Event().wait()
        evicted = self._evictor.submit(self._evict) if fate > 0.7 else None
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._worker.answer, list(questions))
        except Exception as error:  # as the door to Ray does: an adapter that went in the middle loses the batch
            self.counts["lost within"] += 1
            raise PartUnavailable(part="replica", reason=str(error)) from error
        finally:
            if evicted is not None:
                evicted.result()
        if 0.04 < fate < 0.06:
            self.counts["lost after"] += 1
            raise PartUnavailable(part="replica", reason="the answer was lost on the way")
        return answers

    def _evict(self) -> None:
        for digest in self._chance.sample(self._digests, 6):
            self.counts["evicted"] += digest in self.engine.loaded()
            self.engine.unload(digest)

    def close(self) -> None:
        self._thread.shutdown()
        self._evictor.shutdown()


@pytest.fixture
def replica(fleet: Fleet) -> Iterator[Unsteady]:
    one = Unsteady(fleet, seed=11)
    yield one
    one.close()


@pytest.mark.timeout(900)
def test_twenty_thousand_answers_of_64_tasks_are_those_of_each_adapter_run_alone(fleet: Fleet, truth: Truth, replica: Unsteady) -> None:
    batcher = Batcher(replica, batch_rows=16, queue_rows=160, lanes=2, attempt_s=0.5, task_queue_rows=40, task_rows=4)
    outcomes: Counter[str] = Counter()
    wrong: list[tuple[Asked, Answer]] = []
    digests = list(fleet.folders)

    async def caller(number: int) -> None:
        chance = random.Random(number)
        while outcomes["answered"] < ANSWER_COUNT:
            task = digests[min(int(chance.expovariate(0.08)), TASK_COUNT - 1)]  # some tasks ask much, some seldom
            asked = [(task, text) for text in chance.choices(fleet.texts[task], k=chance.choice((1, 1, 2, 8)))]
            deadline_s, patience_s = chance.choice((0.02, 20.0, 20.0, 20.0)), chance.choice((0.01, 60.0, 60.0, 60.0))
            try:
                async with asyncio.timeout(patience_s):  # a caller that goes away
                    answers = await batcher.answer(asked, deadline_s=deadline_s, flow=str(task))
            except (DeadlinePassed, Overloaded, PartUnavailable, TimeoutError) as error:
                outcomes[type(error).__name__] += 1
                await asyncio.sleep(0.002)
                continue
            outcomes["answered"] += len(answers)
            wrong.extend((one, answer) for one, answer in zip(asked, answers, strict=True) if not same(truth[one], answer))

    async def story() -> None:
        await asyncio.gather(*(caller(number) for number in range(CALLER_COUNT)))

    asyncio.run(story())
    assert wrong == []
    assert outcomes["answered"] >= ANSWER_COUNT
    assert min(outcomes[name] for name in ("DeadlinePassed", "TimeoutError")) > 0
    assert min(replica.counts[name] for name in ("lost before", "lost after", "hung", "evicted")) > 0, replica.counts
    assert batcher.waiting_count == 0


def same(expected: Answer, given: Answer) -> bool:
    """Whether an answer is the expected one, but for rounding."""
    wanted, found = (np.frombuffer(one[2], "<f2").astype(np.float32) for one in (expected, given))
    close = abs(expected[1] - given[1]) < TOLERANCE and np.allclose(wanted, found, atol=TOLERANCE, rtol=TOLERANCE)
    return expected[0] == given[0] and expected[3] == given[3] and bool(close)
