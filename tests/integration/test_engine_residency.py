"""More adapters than room: every answer is still the adapter's own, the claimed and the pinned stay, and what leaves comes back."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.backends.lora.banks import Bank
from holdfast.backends.lora.engine import LoraEngine, ServingOptions
from holdfast.backends.lora.favourite import MIN_ROWS
from holdfast.backends.lora.files import LORA_NAME
from holdfast.backends.lora.layouts import Layout
from holdfast.domain.ids import AdapterDigest
from holdfast.errors import AdapterRefused, NotFound
from holdfast.ports import Answer, Question
from holdfast.testing.tiny_model import WORDS

Sealed = Callable[..., AdapterDigest]
"""See the fixture ``sealed``."""
COUNT = 8
TEXTS = tuple(" ".join(random.Random(seed).choices(WORDS, k=1 + 5 * (seed % 4))) for seed in range(6))


class Fleet:
    """Adapters of two ranks on a tiny base, and what each answers alone."""

    def __init__(self, folder: Path, engine: LoraEngine, sealed: Sealed) -> None:
        places = [folder / str(seed) for seed in range(COUNT)]
        self.folders = {sealed(one, engine, seed=n, rank=4 if n % 2 else 16, layers=2): one for n, one in enumerate(places)}
        self.digests = list(self.folders)
        self.bytes = {digest: engine.read(path).byte_count for digest, path in self.folders.items()}
        self.alone: dict[tuple[AdapterDigest, str], Answer] = {}
        for digest, path in self.folders.items():
            engine.load(digest, path)
            answers = engine.answer([Question(digest=digest, text=text) for text in TEXTS])
            self.alone |= {(digest, text): answer for text, answer in zip(TEXTS, answers, strict=True)}

    def check(self, engine: LoraEngine, asked: list[tuple[AdapterDigest, str]]) -> None:
        """Ask, and compare each answer with the one of its adapter alone."""
        for pair, answer in zip(asked, engine.answer([Question(digest=d, text=t) for d, t in asked]), strict=True):
            alone = self.alone[pair]
            assert answer.prediction.confidence == pytest.approx(alone.prediction.confidence, abs=1e-5)
            np.testing.assert_allclose(np.asarray(answer.embedding), np.asarray(alone.embedding), atol=2e-3)


@pytest.fixture(scope="module")
def fleet(pin: tuple[str, str], tmp_path_factory: pytest.TempPathFactory, sealed: Sealed) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("fleet"), LoraEngine({"tiny": pin}, 1), sealed)


@pytest.fixture(params=["disk", "host"])
def small(request: pytest.FixtureRequest, pin: tuple[str, str], fleet: Fleet, tmp_path: Path) -> Iterator[LoraEngine]:
    """An engine with room for three of eight; what leaves goes to host memory, or to disk at once."""
    room = 3 * max(fleet.bytes.values())
    options = ServingOptions(bank_bytes=room, host_bytes=room if request.param == "host" else 0)
    engine = LoraEngine({"tiny": pin}, 1, serving=options)
    for digest, folder in fleet.folders.items():
        engine.load(digest, folder)
    yield engine
    engine.close()


def test_all_are_loaded_though_few_have_room(small: LoraEngine, fleet: Fleet) -> None:
    assert small.loaded() == set(fleet.digests)
    tiers = list(small.resident().values())
    assert len(tiers) == COUNT and 3 <= tiers.count("bank") < COUNT


def test_one_batch_may_ask_for_more_adapters_than_have_room(small: LoraEngine, fleet: Fleet) -> None:
    fleet.check(small, [(digest, text) for text in TEXTS for digest in fleet.digests])


def test_threads_that_evict_one_another_all_get_the_answers_of_their_adapters(small: LoraEngine, fleet: Fleet) -> None:
    def ask(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(15):
            fleet.check(small, [(chance.choice(fleet.digests), chance.choice(TEXTS)) for _ in range(chance.randint(1, 12))])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))


def test_unloading_and_loading_meanwhile_costs_no_answer(small: LoraEngine, fleet: Fleet) -> None:
    changing, stop = fleet.digests[0], threading.Event()

    def change() -> None:
        while not stop.is_set():
            small.unload(changing)
            small.load(changing, fleet.folders[changing])

    with ThreadPoolExecutor(1) as pool:
        changes = pool.submit(change)
        for turn in range(20):
            fleet.check(small, [(fleet.digests[1 + (turn + n) % (COUNT - 1)], TEXTS[n % len(TEXTS)]) for n in range(10)])
        stop.set()
        changes.result()
    fleet.check(small, [(changing, text) for text in TEXTS])


def test_a_claimed_adapter_stays_until_it_is_released_even_unloaded(small: LoraEngine, fleet: Fleet) -> None:
    held = fleet.digests[1]
    with small._residency.claim([held]) as steps:
        adapter = next(steps)[held]
        used = adapter.layout.used  # what follows in the row is whatever lay in that memory, perhaps no number
        before = adapter.row[:used].clone()
        small.unload(held)
        for digest in fleet.digests[2:]:
            fleet.check(small, [(digest, TEXTS[1])])
        assert torch.equal(adapter.row[:used], before)
    with pytest.raises(NotFound):
        small.answer([Question(digest=held, text="x")])


def test_a_pinned_adapter_never_leaves_and_pins_leave_room(small: LoraEngine, fleet: Fleet) -> None:
    large = [digest for digest in fleet.digests if fleet.bytes[digest] == max(fleet.bytes.values())]
    assert small.pin(large[0]) and small.pin(large[1])
    assert not small.pin(large[2]), "a third would leave no room for the others"
    for _ in range(2):
        fleet.check(small, [(digest, TEXTS[0]) for digest in fleet.digests])
        tiers = small.resident()
        assert tiers[large[0]] == tiers[large[1]] == "bank"
    small.unpin(large[0])
    assert small.pin(large[2])
    with pytest.raises(NotFound):
        small.pin(AdapterDigest("sha256:none"))


def test_an_adapter_whose_files_changed_on_disk_is_not_answered_with(
    pin: tuple[str, str], fleet: Fleet, tmp_path: Path, sealed: Sealed
) -> None:
    engine = LoraEngine({"tiny": pin}, 1, serving=ServingOptions(bank_bytes=2 * max(fleet.bytes.values()), host_bytes=0))
    folder = tmp_path / "one"
    digest = sealed(folder, engine, seed=99, layers=2)
    engine.load(digest, folder)
    for other in fleet.digests:
        engine.load(other, fleet.folders[other])
    assert engine.resident()[digest] == "disk"
    content = bytearray((folder / LORA_NAME).read_bytes())
    content[-1] ^= 1
    (folder / LORA_NAME).write_bytes(content)
    with pytest.raises(NotFound):
        engine.answer([Question(digest=digest, text="x"), Question(digest=fleet.digests[-1], text="x")])
    assert digest not in engine.loaded()
    fleet.check(engine, [(fleet.digests[-1], TEXTS[0])])
    engine.close()


def test_an_adapter_larger_than_all_room_is_refused(pin: tuple[str, str], fleet: Fleet) -> None:
    engine = LoraEngine({"tiny": pin}, 1, serving=ServingOptions(bank_bytes=4096))
    with pytest.raises(AdapterRefused, match="no room"):
        engine.load(fleet.digests[0], fleet.folders[fleet.digests[0]])
    assert engine.loaded() == frozenset()


def test_an_adapter_with_most_of_the_traffic_gets_a_base_of_its_own_and_answers_as_before(pin: tuple[str, str], fleet: Fleet) -> None:
    engine = LoraEngine({"tiny": pin}, 2, serving=ServingOptions())
    for digest, folder in fleet.folders.items():
        engine.load(digest, folder)
    hot, others = fleet.digests[0], fleet.digests[1:]
    mixed = [(hot, text) for text in TEXTS] + [(others[n % len(others)], text) for n, text in enumerate(TEXTS[:3])]
    for _ in range(1 + MIN_ROWS // len(mixed)):
        fleet.check(engine, mixed)
    engine._favourite.settle()
    assert engine._favourite._merged is not None and engine._favourite._merged.digest == hot
    fleet.check(engine, mixed)
    for _ in range(MIN_ROWS):
        fleet.check(engine, [(others[n % len(others)], text) for n, text in enumerate(TEXTS)])
    assert engine._favourite._merged is None or engine._favourite._merged.digest != hot
    engine.close()


def test_a_slot_is_used_again_and_holds_what_was_put_last() -> None:
    bank = Bank(Layout(0, (), 3, 8, 16), slot_count=2)
    first, second = (bank.seat(torch.full((bank.layout.floats,), value)) for value in (1.0, 2.0))
    bank.leave(first.slot)
    third = bank.seat(torch.full((bank.layout.floats,), 3.0))
    assert third.slot == first.slot
    assert (float(second.row[0]), float(third.row[-1])) == (2.0, 3.0)
