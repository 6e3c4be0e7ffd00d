"""Identity proof where versions share banks, leave them and come back, and where a base is answered by through copies of its weights."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.backends.lora.engine import LoraEngine, ServingOptions
from holdfast.backends.lora.favourite import MIN_ROWS
from holdfast.backends.lora.linears import PackedLinears
from holdfast.domain.ids import AdapterDigest, bare
from holdfast.errors import AdapterRefused, NotFound
from holdfast.ports import Answer, Question
from holdfast.testing.tiny_model import WORDS, make_tiny_model

Sealed = Callable[..., AdapterDigest]
"""See the fixture ``sealed``."""
COUNT = 4
TEXTS = tuple(" ".join(random.Random(seed).choices(WORDS, k=1 + 5 * (seed % 4))) for seed in range(4))


class Site:
    """A base of its own (bases are shared in a process) and versions of one form, so that all sit in one bank."""

    def __init__(self, folder: Path, sealed: Sealed) -> None:
        self.pin = make_tiny_model(folder / "base")
        maker = LoraEngine({"tiny": self.pin}, 1)
        self.folders = {sealed(folder / str(n), maker, seed=n, layers=2): folder / str(n) for n in range(COUNT)}
        self.digests = list(self.folders)
        self.row_bytes = maker.read(self.folders[self.digests[0]]).byte_count
        self.engines: list[LoraEngine] = []

    def engine(self, options: ServingOptions | None = None, *, load: bool = True) -> LoraEngine:
        made = LoraEngine({"tiny": self.pin}, 1, serving=options or ServingOptions())
        self.engines.append(made)
        for digest, folder in self.folders.items() if load else ():
            made.load(digest, folder)
        return made


@pytest.fixture
def site(tmp_path: Path, sealed: Sealed) -> Iterator[Site]:
    made = Site(tmp_path, sealed)
    yield made
    for engine in made.engines:
        engine.close()


def asked(engine: LoraEngine, digest: AdapterDigest) -> tuple[Answer, ...]:
    return engine.answer([Question(digest=digest, text=text) for text in TEXTS])


def same(found: tuple[Answer, ...], wanted: tuple[Answer, ...]) -> bool:
    return all(
        a.prediction.label == b.prediction.label and np.allclose(np.asarray(a.embedding), np.asarray(b.embedding), atol=2e-3)
        for a, b in zip(found, wanted, strict=True)
    )


def row_of(engine: LoraEngine, digest: AdapterDigest) -> torch.Tensor:
    """Its row in the bank, where it is now."""
    return engine._residency._entries[digest].loaded.row


def test_loading_unloading_and_answering_touch_no_other_version_of_the_bank(site: Site) -> None:
    engine = site.engine(load=False)
    for digest, folder in site.folders.items():
        engine.load(digest, folder)
        asked(engine, digest)
        assert engine.touched(engine.loaded()) == frozenset()
    engine.unload(site.digests[0])
    engine.load(site.digests[0], site.folders[site.digests[0]])
    assert engine.touched(engine.loaded()) == frozenset()


def test_a_foreign_write_to_one_row_touches_every_version_of_its_bank_until_each_is_proved(site: Site) -> None:
    engine = site.engine()
    row_of(engine, site.digests[1]).mul_(2.0)
    assert engine.touched(engine.loaded()) == set(site.digests)
    for digest in site.digests:
        if digest != site.digests[1]:
            engine.prove(digest)
    assert engine.touched(engine.loaded()) == {site.digests[1]}
    with pytest.raises(AdapterRefused, match="another one"):
        engine.prove(site.digests[1])
    assert engine.touched(engine.loaded()) == {site.digests[1]}, "a failed proof is none"


def test_a_foreign_write_is_still_seen_after_the_banks_own_writes_and_covers_no_row_taken_later(site: Site) -> None:
    engine = site.engine()
    engine.unload(site.digests[0])
    row_of(engine, site.digests[1]).mul_(2.0)
    engine.load(site.digests[0], site.folders[site.digests[0]])
    assert engine.touched(engine.loaded()) == set(site.digests[1:])


@pytest.mark.parametrize("way", ["eager", "packed"])
def test_a_write_to_the_weights_that_the_base_is_run_by_is_caught_in_every_version_on_it(site: Site, way: str) -> None:
    if way == "packed" and not PackedLinears.works():
        pytest.skip("this build of torch does not pack")
    engine = site.engine(ServingOptions(way=way))
    used = engine._way(engine.base("tiny"))
    assert used.name == way
    with torch.no_grad():
        used.linears.tensors[2].mul_(1.05)
    assert engine.touched(engine.loaded()) == set(site.digests)
    with pytest.raises(AdapterRefused, match="the base under it is another one"):
        engine.prove(site.digests[0])


def test_what_changed_in_host_memory_does_not_come_back_into_a_bank(site: Site) -> None:
    truth = {digest: asked(site.engine(), digest) for digest in site.digests}
    engine = site.engine(ServingOptions(bank_bytes=2 * site.row_bytes, host_bytes=1 << 20))
    away = next(digest for digest, tier in engine.resident().items() if tier == "host")
    host = engine._residency._entries[away].host
    assert host is not None
    host.numpy()[: 3 * 32] *= -1.0  # past torch: no write is counted
    assert same(asked(engine, away), truth[away]), "it was read again from its files"
    assert engine.touched(engine.loaded()) == frozenset()


def test_another_version_with_true_digests_in_the_folder_of_one_on_disk_does_not_answer_under_its_name(site: Site) -> None:
    engine = site.engine(ServingOptions(bank_bytes=2 * site.row_bytes, host_bytes=0))
    away = next(digest for digest, tier in engine.resident().items() if tier == "disk")
    other = next(digest for digest in site.digests if digest != away)
    shutil.rmtree(site.folders[away])
    shutil.copytree(site.folders[other], site.folders[away])
    with pytest.raises(NotFound):
        asked(engine, away)
    assert away not in engine.loaded()


def test_versions_that_left_and_came_back_are_untouched_and_can_be_proved_wherever_they_are(site: Site) -> None:
    engine = site.engine(ServingOptions(bank_bytes=2 * site.row_bytes, host_bytes=site.row_bytes))
    before = dict(engine.resident())
    assert set(before.values()) == {"bank", "host", "disk"}
    for digest in site.digests:
        engine.prove(digest)
    assert engine.resident() == before, "a proof brings nothing in and evicts nothing"
    for _ in range(2):
        for digest in site.digests:
            asked(engine, digest)
            assert engine.touched(engine.loaded()) == frozenset()


def test_a_foreign_write_to_a_version_that_then_leaves_its_bank_does_not_outlive_the_way_back(site: Site) -> None:
    truth = {digest: asked(site.engine(), digest) for digest in site.digests}
    engine = site.engine(ServingOptions(bank_bytes=2 * site.row_bytes, host_bytes=1 << 20))
    bad = next(digest for digest, tier in engine.resident().items() if tier == "bank")
    row_of(engine, bad).mul_(2.0)
    for digest in site.digests:
        if digest != bad:
            asked(engine, digest)
    assert engine.resident()[bad] == "host"
    assert same(asked(engine, bad), truth[bad])


def test_loading_a_loaded_version_again_puts_the_proved_bytes_in_the_place_of_the_old(site: Site) -> None:
    engine = site.engine()
    one = site.digests[0]
    before = asked(engine, one)
    row_of(engine, one).numpy()[: 3 * 32] *= -1.0
    engine.load(one, site.folders[one])
    assert same(asked(engine, one), before)
    assert engine.loaded() == set(site.digests)


def test_a_version_that_was_never_proved_is_touched_and_passes_no_proof(site: Site) -> None:
    engine = site.engine(load=False)
    one = site.digests[0]
    engine._residency.register(engine.read(site.folders[one]), site.folders[one])
    assert engine.touched(frozenset({one})) == {one}
    with pytest.raises(AdapterRefused, match="never proved"):
        engine.prove(one)


def merged(site: Site, engine: LoraEngine) -> AdapterDigest:
    """Ask one version until it has a base of its own, if it gets one."""
    hot = site.digests[0]
    for _ in range(1 + MIN_ROWS // len(TEXTS)):
        asked(engine, hot)
    engine._favourite.settle()
    return hot


@pytest.mark.parametrize("way", ["eager", "packed"])
def test_a_write_to_the_copy_of_the_base_that_a_version_is_merged_into_is_caught_and_dropped_with_it(site: Site, way: str) -> None:
    if way == "packed" and not PackedLinears.works():
        pytest.skip("this build of torch does not pack")
    engine = site.engine(ServingOptions(way=way))
    before = asked(engine, site.digests[0])
    hot = merged(site, engine)
    own = engine._favourite.of(hot)
    assert own is not None and engine.touched(engine.loaded()) == frozenset()
    own.way.linears.tensors[0].mul_(1.5)
    assert not same(asked(engine, hot), before), "the fault is real"
    assert engine.touched(engine.loaded()) == {hot}
    with pytest.raises(AdapterRefused, match="in the copy of the base that it is merged into"):
        engine.prove(hot)
    engine.unload(hot)
    engine.load(hot, site.folders[hot])
    assert engine._favourite.of(hot) is None
    assert same(asked(engine, hot), before)


def test_a_harmless_write_to_the_merged_copy_drops_the_copy_alone(site: Site) -> None:
    engine = site.engine()
    hot = merged(site, engine)
    own = engine._favourite.of(hot)
    assert own is not None
    own.way.linears.tensors[0].mul_(1.0)
    assert engine.touched(engine.loaded()) == {hot}
    engine.prove(hot)
    assert engine.touched(engine.loaded()) == frozenset() and engine._favourite.of(hot) is None


def test_a_row_with_flipped_bits_is_not_merged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    engine = site.engine()
    used = engine.read(site.folders[site.digests[0]]).layout.used
    row_of(engine, site.digests[0]).numpy()[200:used] *= 3.0
    hot = merged(site, engine)
    assert engine._favourite.of(hot) is None
    assert "is not merged into a base of its own" in caplog.text


def test_the_bare_base_answers_beside_versions_in_a_bank_and_takes_no_slot(site: Site) -> None:
    engine = site.engine(ServingOptions(bank_bytes=2 * site.row_bytes, host_bytes=0))
    mixed = [Question(digest=digest, text=TEXTS[1]) for digest in (*site.digests, bare("tiny"))]
    answers = engine.answer(mixed)
    assert (answers[-1].prediction.label, answers[-1].prediction.confidence) == ("", 1.0)
    assert all(answer.tokens == answers[-1].tokens != (0, 0) for answer in answers)
    assert engine.loaded() == set(site.digests) and set(engine.resident()) == set(site.digests)


def test_a_way_that_does_not_work_here_gives_way_to_the_plain_one_which_says_so(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no compiler is found there
    truth = asked(site.engine(), site.digests[0])
    engine = site.engine(ServingOptions(code_folder=tmp_path / "code", way="packed+native"))
    assert same(asked(engine, site.digests[0]), truth)
    assert engine._way(engine.base("tiny")).name == "eager"
    assert "no C compiler is here" in caplog.text and "answers of tiny go the way eager" in caplog.text
