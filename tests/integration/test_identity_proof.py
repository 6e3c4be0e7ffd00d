"""Identity proof: every planted fault is caught before an answer leaves, at loading and in memory, and is told by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from holdfast.backends.lora import proofs as proof_room
from holdfast.backends.lora.base_model import BaseModel
from holdfast.backends.lora.engine import LoraEngine
from holdfast.backends.lora.files import FINGERPRINT_NAME, HEAD_NAME, LORA_CONFIG_NAME, LORA_NAME, file_digest, finish_adapter, write_json
from holdfast.backends.lora.head import Head
from holdfast.backends.lora.layouts import LoadedAdapter, Place
from holdfast.domain.adapters import Manifest
from holdfast.domain.ids import AdapterDigest
from holdfast.domain.records import from_plain
from holdfast.errors import AdapterRefused
from holdfast.serving.replica import PROVE_S, ReplicaWorker
from holdfast.testing.clock import NOON
from holdfast.testing.memory import MemoryDatabase
from holdfast.testing.record_builders import an_assignment
from holdfast.testing.tiny_model import make_tiny_model

ASKED = "where is the parcel that i ordered last week"
Pin = tuple[str, str]


@dataclass
class Site:
    """An engine on a base of its own (bases are shared in a process), and a judged version."""

    folder: Path
    pin: Pin
    engine: LoraEngine
    digest: AdapterDigest

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def loaded(self) -> LoadedAdapter:
        """The version on its row in the bank; what is written to its parts is written to the bank."""
        return self.engine._residency._entries[self.digest].loaded

    @property
    def head(self) -> Head:
        return self.loaded.layout.head(self.loaded.row)

    def pair(self, place: Place) -> tuple[torch.Tensor, torch.Tensor]:
        return self.loaded.layout.pair(self.loaded.row, place)

    @property
    def matrices(self) -> list[torch.Tensor]:
        """Down and up of every place."""
        return [one for place in self.loaded.layout.places for one in self.pair(place)]

    def copy(self, harm: Callable[[Path], None]) -> tuple[AdapterDigest, Path]:
        """The version with a fault planted in its files, and a manifest that names the bytes as they are now, as a forger would."""
        bad = self.folder / "bad"
        shutil.copytree(self.adapter, bad)
        harm(bad)
        manifest = from_plain(Manifest, json.loads((bad / "manifest.json").read_text()))
        return finish_adapter(bad, replace(manifest, files={name: file_digest(bad / name) for name in manifest.files})), bad


@pytest.fixture
def site(tmp_path: Path, sealed: Callable[..., AdapterDigest]) -> Site:
    pin = make_tiny_model(tmp_path / "base")
    engine = LoraEngine({"tiny": pin}, 1)
    return Site(tmp_path, pin, engine, sealed(tmp_path / "adapter", engine, seed=1, layers=2))


def lora_file(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    return lambda folder: changed(folder / LORA_NAME, change)


def head_file(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    return lambda folder: changed(folder / HEAD_NAME, change)


def changed(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)


def zero_b(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        tensors[name] = torch.zeros_like(tensor) if "lora_B" in name else tensor


def all_but_nothing(tensors: dict[str, torch.Tensor]) -> None:
    """B is not zero, A is: a no-op that no look at B alone shows."""
    for name, tensor in tensors.items():
        tensors[name] = torch.zeros_like(tensor) if "lora_A" in name else tensor


def swap_query_and_value(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if ".query." in name]:
        other = name.replace(".query.", ".value.")
        tensors[name], tensors[other] = tensors[other], tensors[name]


def swap_layers(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if ".layer.0." in name]:
        other = name.replace(".layer.0.", ".layer.1.")
        tensors[name], tensors[other] = tensors[other], tensors[name]


def cut_rank(folder: Path) -> None:
    """Half of the rank is gone, and config and shapes agree on it; alpha / r stays what it was."""

    def halve(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor[:2] if "lora_A" in name else tensor[:, :2]

    changed(folder / LORA_NAME, halve)
    plain = json.loads((folder / LORA_CONFIG_NAME).read_text())
    (folder / LORA_CONFIG_NAME).write_text(json.dumps({**plain, "r": 2, "lora_alpha": plain["lora_alpha"] / 2}))


def zero_head(tensors: dict[str, torch.Tensor]) -> None:
    tensors["weight"] = torch.zeros_like(tensors["weight"])


def swap_labels(tensors: dict[str, torch.Tensor]) -> None:
    tensors["weight"] = tensors["weight"][[1, 2, 0]]
    tensors["bias"] = tensors["bias"][[1, 2, 0]]


def quantised(tensor: torch.Tensor) -> torch.Tensor:
    """Through int8 and back."""
    scale = tensor.abs().max() / 127
    return (tensor / scale).round().clamp(-127, 127) * scale


def quantise(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        tensors[name] = quantised(tensor)


def shorter(folder: Path) -> None:
    plain = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**plain, "max_tokens": 24}))


FILE_FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no-op adapter": (lora_file(zero_b), r"does nothing.*no-op"),
    "no-op adapter, A zero": (lora_file(all_but_nothing), r"does nothing.*no-op"),
    "swapped tensors": (lora_file(swap_query_and_value), "its LoRA is another one"),
    "swapped layers": (lora_file(swap_layers), "its LoRA is another one"),
    "truncated rank": (cut_rank, "its LoRA is another one"),
    "zeroed head": (head_file(zero_head), "its head is another one and says the same to every text"),
    "swapped labels": (head_file(swap_labels), "its head is another one"),
    "quantised LoRA": (lora_file(quantise), "its LoRA is another one"),
    "quantised head": (head_file(quantise), "its head is another one"),
    "truncation length": (shorter, "it reads 24 tokens of a long text where it read 32"),
}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_a_fault_in_the_files_is_refused_at_loading_under_whatever_name_and_the_old_version_goes_on(site: Site, fault: str) -> None:
    harm, said = FILE_FAULTS[fault]
    replica = Replica(site)
    before = replica.ask()
    forged, bad = site.copy(harm)
    replica.folders[forged] = bad
    replica.assign(forged, previous=site.digest)
    assert replica.refused(forged, said)
    assert replica.ask() == before
    assert replica.ready() == {site.digest}


@pytest.mark.parametrize("fault", FILE_FAULTS)
def test_without_the_comparison_each_of_these_faults_would_answer(site: Site, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_room, "difference", lambda *_: None)
    forged, bad = site.copy(FILE_FAULTS[fault][0])
    site.engine.load(forged, bad)
    assert forged in site.engine.loaded()


def test_the_same_name_loaded_again_with_other_bytes_is_refused_and_the_old_bytes_go_on(site: Site) -> None:
    replica = Replica(site)
    before = replica.ask()
    forged, bad = site.copy(head_file(swap_labels))
    with pytest.raises(AdapterRefused, match=f"it is {forged}, not {site.digest}"):
        site.engine.load(site.digest, bad)
    (bad / "manifest.json").write_text((site.adapter / "manifest.json").read_text())
    with pytest.raises(AdapterRefused, match="digest in the manifest"):
        site.engine.load(site.digest, bad)
    assert replica.ask() == before


def test_another_base_under_the_same_name_is_refused_by_its_digest(site: Site) -> None:
    other = make_tiny_model(site.folder / "other", seed=9)
    with pytest.raises(AdapterRefused, match="was trained on"):
        LoraEngine({"tiny": other}, 1).load(site.digest, site.adapter)


def test_a_wrong_base_revision_is_refused_by_its_outputs_even_where_the_manifest_was_made_to_name_it(site: Site) -> None:
    other = make_tiny_model(site.folder / "other", seed=9)

    def name_it(folder: Path) -> None:
        plain = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**plain, "base_digest": f"sha256:{other[1]}"}))

    forged, bad = site.copy(name_it)
    with pytest.raises(AdapterRefused, match="the base under it is another one"):
        LoraEngine({"tiny": other}, 1).load(forged, bad)


def test_a_base_with_the_pinned_weights_and_another_configuration_is_refused(site: Site) -> None:
    shutil.copytree(site.pin[0], site.folder / "other")
    config = site.folder / "other" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_attention_heads": 4}))
    with pytest.raises(AdapterRefused, match="the base under it is another one"):
        LoraEngine({"tiny": (str(site.folder / "other"), site.pin[1])}, 1).load(site.digest, site.adapter)


def test_a_base_with_the_pinned_weights_and_another_tokenizer_is_refused(site: Site) -> None:
    shutil.copytree(site.pin[0], site.folder / "other")
    path = site.folder / "other" / "tokenizer.json"
    plain = json.loads(path.read_text())
    vocabulary = plain["model"]["vocab"]
    vocabulary["order"], vocabulary["invoice"] = vocabulary["invoice"], vocabulary["order"]
    path.write_text(json.dumps(plain))
    with pytest.raises(AdapterRefused, match="the tokenizer is another one"):
        LoraEngine({"tiny": (str(site.folder / "other"), site.pin[1])}, 1).load(site.digest, site.adapter)


def test_a_fingerprint_of_the_format_before_is_refused_with_what_to_do(site: Site) -> None:
    path = site.adapter / FINGERPRINT_NAME
    plain = json.loads(path.read_text())
    path.write_text(json.dumps({name: plain[name] for name in ("probes", "labels", "scores")}))
    with pytest.raises(AdapterRefused, match="it has the format 1, not 2: train the version again"):
        site.engine.load(site.digest, site.adapter)


def test_a_version_whose_lora_learned_nothing_is_itself_when_it_was_judged_so(site: Site) -> None:
    """A training whose first epoch was the best hands over B as it began, which is zero: weak, and what the gate saw."""
    idle, folder = site.copy(lora_file(zero_b))
    write_json(folder / FINGERPRINT_NAME, site.engine.fingerprint(site.engine.read(folder)))
    site.engine.load(idle, folder)
    site.engine.prove(idle)


def test_rounding_within_the_tolerance_is_the_same_version(site: Site) -> None:
    site.engine.load(site.digest, site.adapter)
    site.loaded.row.add_(1e-7)
    site.engine.prove(site.digest)


class Replica:
    """A replica's worker on the real engine, its clock moved by hand."""

    def __init__(self, site: Site) -> None:
        self.site, self.now, self.database = site, 0.0, MemoryDatabase()
        self.folders = {site.digest: site.adapter}
        self.worker = ReplicaWorker(
            replica_id="replica-1", unit_of_work=self.database.unit_of_work, adapters=self, engine=site.engine, clock=lambda: NOON,
            monotonic=lambda: self.now,
        )  # fmt: skip
        self._generation = 0
        self.assign(site.digest)

    def folder(self, digest: AdapterDigest) -> Path:
        """As an adapter store."""
        return self.folders[digest]

    def assign(self, champion: AdapterDigest, previous: AdapterDigest | None = None) -> None:
        held, self._generation = self._generation or None, self._generation + 1
        with self.database.unit_of_work() as work:
            new = an_assignment(champion=champion, previous=previous, generation=self._generation)
            work.assignments.put(new, expected_generation=held)
            work.commit()
        self.worker.refresh()

    def ask(self, digest: AdapterDigest | None = None) -> tuple[str, float] | str:
        answer = self.worker.answer([(digest or self.site.digest, ASKED)])[0]
        return answer if isinstance(answer, str) else (answer[0], round(answer[1], 5))

    def refused(self, digest: AdapterDigest, said: str) -> bool:
        """Whether an answer is refused and the report says why."""
        with self.database.unit_of_work() as work:
            report = work.replicas.live(NOON)[0]
        with pytest.raises(AssertionError, match=said):
            raise AssertionError(report.refused[digest])
        answer = self.worker.answer([(digest, ASKED)])[0]
        return isinstance(answer, str) and digest not in report.ready

    def ready(self) -> set[AdapterDigest]:
        with self.database.unit_of_work() as work:
            return set(work.replicas.live(NOON)[0].ready)

    def lapse(self) -> str:
        with self.database.unit_of_work() as work:
            return work.replicas.live(NOON)[0].lapsed[self.site.digest]


def head_zeroed(site: Site) -> None:
    site.head.weight.zero_()


def lora_zeroed(site: Site) -> None:
    for up in site.matrices[1::2]:
        up.zero_()


def tensors_swapped(site: Site) -> None:
    query, _, value = site.pair((0, "qkv"))[1]
    held = query.clone()
    query.copy_(value)
    value.copy_(held)


def lora_quantised(site: Site) -> None:
    for tensor in site.matrices:
        tensor.copy_(quantised(tensor))


def rank_cut(site: Site) -> None:
    for up in site.matrices[1::2]:
        up[:, 2:] = 0.0


def replaced_under_its_name(site: Site) -> None:
    """As a load that goes by the name and skips the proof would."""
    _, bad = site.copy(head_file(swap_labels))
    site.engine._residency.register(replace(site.engine.read(bad), digest=site.digest), bad)


def harmed(site: Site, harm: Callable[[Site], None]) -> tuple[Replica, tuple[str, float] | str]:
    """A replica under which a version was harmed, and what it answered before."""
    replica = Replica(site)
    before = replica.ask()
    harm(site)
    return replica, before


MEMORY_FAULTS: dict[str, tuple[Callable[[Site], None], str]] = {
    "zeroed head": (head_zeroed, "its head is another one and says the same to every text"),
    "no-op adapter": (lora_zeroed, "no-op"),
    "swapped tensors": (tensors_swapped, "its LoRA is another one"),
    "truncated rank": (rank_cut, "its LoRA is another one"),
    "quantised swap": (lora_quantised, "its LoRA is another one"),
    "same-name reload": (replaced_under_its_name, "its head is another one"),
}


@pytest.mark.parametrize("fault", MEMORY_FAULTS)
def test_a_fault_in_memory_is_caught_before_the_next_answer_which_the_true_version_gives(site: Site, fault: str) -> None:
    harm, said = MEMORY_FAULTS[fault]
    replica, before = harmed(site, harm)
    assert replica.ask() == before
    replica.worker.refresh()
    assert said in replica.lapse()
    assert replica.ready() == {site.digest}


@pytest.mark.parametrize("fault", MEMORY_FAULTS)
def test_without_the_look_at_what_was_written_the_faulty_weights_would_answer(
    site: Site, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.engine, "touched", lambda digests: frozenset[AdapterDigest]())
    replica, before = harmed(site, MEMORY_FAULTS[fault][0])
    assert replica.ask() != before


def bit_flipped(site: Site) -> None:
    """Past torch, as a bad memory cell would: no write is counted."""
    site.head.weight.numpy()[0] *= 8.0


def tokenizer_changed(site: Site) -> None:
    base = BaseModel.open("tiny", *site.pin)
    real = base.tokenizer
    object.__setattr__(base, "tokenizer", lambda texts, **options: real([text.replace("r", "x") for text in texts], **options))


def read_shorter(site: Site) -> None:
    entry = site.engine._residency._entries[site.digest]
    entry.manifest = replace(entry.manifest, max_tokens=16)


SILENT_FAULTS: dict[str, tuple[Callable[[Site], None], str]] = {
    "flipped bits": (bit_flipped, "its head is another one"),
    "wrong tokenizer": (tokenizer_changed, "the tokenizer is another one"),
    "wrong truncation length": (read_shorter, "it reads 16 tokens of a long text where it read 32"),
}


@pytest.mark.parametrize("fault", SILENT_FAULTS)
def test_a_fault_that_no_write_shows_is_caught_by_the_heartbeat(site: Site, fault: str) -> None:
    harm, said = SILENT_FAULTS[fault]
    replica, before = harmed(site, harm)
    replica.now += PROVE_S
    replica.worker.refresh()
    assert said in replica.lapse()
    assert replica.ask() == before or isinstance(replica.ask(), str)


def test_a_base_written_to_in_memory_stops_every_version_on_it_and_the_replica_asks_to_be_replaced(site: Site) -> None:
    replica = Replica(site)
    base = BaseModel.open("tiny", *site.pin)
    with torch.no_grad():
        base.layers[0].out.mul_(1.01)
    assert "the base under it is another one" in str(replica.ask())
    assert replica.ask() == replica.ask(), "it stays refused"
    assert site.engine.loaded() == frozenset()
    replica.worker.start(3600.0)
    try:
        assert "the base under it is another one" in str(replica.worker.ailing())
    finally:
        replica.worker.close()


def test_values_that_are_no_numbers_pass_no_proof(site: Site) -> None:
    site.engine.load(site.digest, site.adapter)
    site.head.bias[0] = float("nan")
    with pytest.raises(AdapterRefused, match="its head is another one"):
        site.engine.prove(site.digest)


def test_an_untouched_version_is_not_proved_again(site: Site) -> None:
    site.engine.load(site.digest, site.adapter)
    assert site.engine.touched(frozenset({site.digest, AdapterDigest("sha256:unknown")})) == frozenset()
    site.head.bias.mul_(1.0)
    assert site.engine.touched(frozenset({site.digest})) == {site.digest}
    site.engine.prove(site.digest)
    assert site.engine.touched(frozenset({site.digest})) == frozenset()
    assert np.isfinite(site.head.bias.numpy()).all()
