"""The engine: one base in memory, many adapters on it, and batches that mix them answered in one pass."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.backends.lora.base_model import BaseModel, use_threads
from holdfast.backends.lora.encoder import LayerLora, Packing, Segment, embed_tokens, pool, run_layers
from holdfast.backends.lora.files import HEAD_NAME, load_tensors, read_fingerprint, read_manifest
from holdfast.backends.lora.fingerprint import Observed, difference, probes_for, seal, stamp
from holdfast.backends.lora.head import Head
from holdfast.backends.lora.lora_format import fuse, read_lora
from holdfast.backends.lora.prefix_cache import FrozenPrefix, by_length
from holdfast.domain.adapters import Fingerprint, Manifest, adapter_digest
from holdfast.domain.captures import Prediction
from holdfast.domain.ids import AdapterDigest
from holdfast.errors import AdapterRefused, BaseModelRefused, NotFound
from holdfast.ports import Answer, Question


@dataclass(frozen=True, slots=True, eq=False)
class LoadedAdapter:
    """One adapter as the engine runs it."""

    manifest: Manifest
    base: BaseModel
    head: Head
    layers: Mapping[int, LayerLora]
    """Encoder layer to LoRA; empty for a head-only adapter."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All its tensors."""
        pairs = [pair for layer in self.layers.values() for pair in (layer.qkv, layer.out, layer.up, layer.down)]
        return (self.head.weight, self.head.bias, *(tensor for pair in pairs for tensor in (pair.down, *pair.ups)))

    @property
    def byte_count(self) -> int:
        """Bytes of its tensors in memory."""
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What a loaded version is proved against, and how its tensors lay when it was."""

    adapter: LoadedAdapter
    folder: Path
    sealed: Fingerprint
    stamp: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What an adapter says to some texts."""

    logits: NDArray[np.float32]
    """[texts, labels of the adapter]."""
    pooled: NDArray[np.float32]
    """[texts, hidden]."""


class LoraEngine:
    """Implements ports.InferenceEngine. Loading and answering may happen at the same time in different threads.

    Args:
        bases: base name to path (a folder, or ``package:NAME``) and the pinned SHA-256 of its weights. Opened on first use.
        threads: torch threads of this process.
        cache_folder: where given, head-only adapters answer from the cache of pooled vectors, which grows with every new
            text: for replays and scoring, not for serving. Such an engine answers from one thread.
    """

    def __init__(self, bases: Mapping[str, tuple[str, str]], threads: int, *, cache_folder: Path | None = None) -> None:
        use_threads(threads)
        self._bases = dict(bases)
        self._cache_folder = cache_folder
        self._frozen: dict[tuple[str, int], FrozenPrefix] = {}
        self._adapters: Mapping[AdapterDigest, LoadedAdapter] = {}
        self._proofs: Mapping[AdapterDigest, Proof] = {}
        self._lock = threading.Lock()

    def load(self, digest: AdapterDigest, folder: Path) -> None:
        """Load beside what is there and prove it by its fingerprint. Raises AdapterRefused; what was loaded stays."""
        adapter = self.read(folder)
        found = adapter_digest(adapter.manifest)
        if found != digest:
            raise AdapterRefused(folder=folder, reason=f"it is {found}, not {digest}")
        proof = self._proved(adapter, folder, read_fingerprint(folder))
        with self._lock:
            self._adapters, self._proofs = {**self._adapters, digest: adapter}, {**self._proofs, digest: proof}

    def prove(self, digest: AdapterDigest) -> None:
        """Compare what a loaded version answers now with what was sealed. Raises AdapterRefused, NotFound (kind `adapter`)."""
        adapter, proof = self._adapters.get(digest), self._proofs.get(digest)
        if adapter is None or proof is None:
            raise NotFound(kind="adapter", name=digest)
        proof = self._proved(adapter, proof.folder, proof.sealed, quick=True)
        with self._lock:
            if self._adapters.get(digest) is adapter:
                self._proofs = {**self._proofs, digest: proof}

    def touched(self, digests: AbstractSet[AdapterDigest]) -> frozenset[AdapterDigest]:
        """Those of the loaded ``digests`` whose tensors, or whose base's, were written to or replaced since they were proved."""
        adapters, proofs = self._adapters, self._proofs
        bases: dict[str, tuple[int, ...]] = {}
        found = set()
        for digest in digests & adapters.keys():
            adapter, proof = adapters[digest], proofs.get(digest)
            if adapter.base.name not in bases:
                bases[adapter.base.name] = stamp(adapter.base.tensors)
            if proof is None or proof.adapter is not adapter or proof.stamp != bases[adapter.base.name] + stamp(adapter.tensors):
                found.add(digest)
        return frozenset(found)

    def unload(self, digest: AdapterDigest) -> None:
        """Forget it; a batch that is under way keeps what it began with."""
        with self._lock:
            self._adapters = {key: value for key, value in self._adapters.items() if key != digest}
            self._proofs = {key: value for key, value in self._proofs.items() if key != digest}

    def loaded(self) -> frozenset[AdapterDigest]:
        """Digests of what answers."""
        return frozenset(self._adapters)

    def answer(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        """In the order asked. Raises NotFound (kind `adapter`) when a digest is not loaded."""
        adapters = self._adapters  # one look: a swap meanwhile does not split this batch
        for question in questions:
            if question.digest not in adapters:
                raise NotFound(kind="adapter", name=question.digest)
        answers: dict[int, Answer] = {}
        by_base: dict[str, list[int]] = {}
        for i, question in enumerate(questions):
            adapter = adapters[question.digest]
            if self._cache_folder is None or adapter.layers:
                by_base.setdefault(adapter.base.name, []).append(i)
        cached = sorted(set(range(len(questions))) - {i for rows in by_base.values() for i in rows})
        for digest in dict.fromkeys(questions[i].digest for i in cached):
            rows = [i for i in cached if questions[i].digest == digest]
            output = self._frozen_output(adapters[digest], [questions[i].text for i in rows])
            answers |= dict(zip(rows, _answers(adapters[digest], output), strict=True))
        for rows in by_base.values():
            pairs = [(adapters[questions[i].digest], questions[i].text) for i in rows]
            answers |= dict(zip(rows, self._mixed(pairs), strict=True))
        return tuple(answers[i] for i in range(len(questions)))

    def read(self, folder: Path) -> LoadedAdapter:
        """The adapter of a folder, checked in form but not yet by its fingerprint. Raises AdapterRefused."""
        manifest = read_manifest(folder)
        base = self._base(folder, manifest)
        tensors = load_tensors(folder / HEAD_NAME)
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        wanted = {"weight": (len(manifest.labels), base.hidden), "bias": (len(manifest.labels),)}
        if found != wanted:
            raise AdapterRefused(folder=folder, reason=f"its head is {found}; its labels and base ask for {wanted}")
        layers = {} if manifest.rung == "head" else fuse(read_lora(folder, base))
        return LoadedAdapter(manifest, base, Head(tensors["weight"], tensors["bias"]), layers)

    def fingerprint(self, adapter: LoadedAdapter) -> Fingerprint:
        """What is sealed of a version when it is judged."""
        probes = probes_for(adapter.manifest.max_tokens)
        return seal(self._observed(adapter, probes), probes, adapter.manifest.labels)

    def frozen(self, base: BaseModel, max_tokens: int) -> FrozenPrefix:
        """The cache of a base at a length, kept warm between calls."""
        key = (base.name, max_tokens)
        if key not in self._frozen:
            self._frozen[key] = FrozenPrefix(base, max_tokens, self._cache_folder)
        return self._frozen[key]

    def base(self, name: str) -> BaseModel:
        """A base by name. Raises BaseModelRefused."""
        if name not in self._bases:
            raise BaseModelRefused(base=name, reason="the settings name no such base")
        return BaseModel.open(name, *self._bases[name])

    def _base(self, folder: Path, manifest: Manifest) -> BaseModel:
        base = self.base(manifest.base)
        if manifest.base_digest.removeprefix("sha256:") != base.digest:
            raise AdapterRefused(folder=folder, reason=f"it was trained on {manifest.base_digest}, the base here is {base.digest}")
        return base

    def _proved(self, adapter: LoadedAdapter, folder: Path, sealed: Fingerprint, *, quick: bool = False) -> Proof:
        """The proof of a version. ``quick`` looks at the bare base only when something is off, to name the cause.

        Raises AdapterRefused.
        """
        lay = stamp(adapter.base.tensors) + stamp(adapter.tensors)  # before the look: a write during it asks for another proof
        labels = adapter.manifest.labels
        why = difference(sealed, self._observed(adapter, sealed.probes, base=not quick), labels)
        if why is not None:
            raise AdapterRefused(folder=folder, reason=difference(sealed, self._observed(adapter, sealed.probes), labels) or why)
        return Proof(adapter, folder, sealed, lay)

    def _observed(self, adapter: LoadedAdapter, probes: Sequence[str], *, base: bool = True) -> Observed:
        """What the adapter, and the bare base in the same batch, make of the probes."""
        bare = replace(adapter, layers={})
        outputs = self._outputs([(adapter, text) for text in probes] + [(bare, text) for text in probes if base])
        own, under = _joined(outputs[: len(probes)]), outputs[len(probes) :]
        ids = adapter.base.token_ids(probes, adapter.manifest.max_tokens)
        return Observed(ids, _joined(under).pooled if under else None, own.pooled, own.logits)

    def _frozen_output(self, adapter: LoadedAdapter, texts: Sequence[str]) -> Output:
        pooled = self.frozen(adapter.base, adapter.manifest.max_tokens).pooled(texts)
        return Output(adapter.head.logits(torch.from_numpy(pooled)).numpy(), pooled)

    def _mixed(self, pairs: Sequence[tuple[LoadedAdapter, str]]) -> list[Answer]:
        return [_answers(adapter, output)[0] for (adapter, _), output in zip(pairs, self._outputs(pairs), strict=True)]

    def _outputs(self, pairs: Sequence[tuple[LoadedAdapter, str]]) -> list[Output]:
        """One output per pair of adapters of one base, in order; batches of similar length, each sorted by adapter."""
        base = pairs[0][0].base
        ids = _token_ids(base, pairs)
        found: dict[int, Output] = {}
        for batch in by_length([len(one) for one in ids]):
            place = {id(pairs[i][0]): at for at, i in enumerate(batch)}
            rows = sorted(batch, key=lambda i: place[id(pairs[i][0])])
            found |= dict(zip(rows, _one_pass(base, [pairs[i][0] for i in rows], [ids[i] for i in rows]), strict=True))
        return [found[i] for i in range(len(pairs))]


def _token_ids(base: BaseModel, pairs: Sequence[tuple[LoadedAdapter, str]]) -> list[list[int]]:
    by_limit: dict[int, list[int]] = {}
    for i, (adapter, _) in enumerate(pairs):
        by_limit.setdefault(adapter.manifest.max_tokens, []).append(i)
    ids: dict[int, list[int]] = {}
    for limit, rows in by_limit.items():
        ids |= dict(zip(rows, base.token_ids([pairs[i][1] for i in rows], limit), strict=True))
    return [ids[i] for i in range(len(pairs))]


def _one_pass(base: BaseModel, adapters: Sequence[LoadedAdapter], ids: Sequence[Sequence[int]]) -> list[Output]:
    """Outputs of one batch whose rows are sorted by adapter."""
    packing = Packing.of([len(one) for one in ids])
    groups = _groups(adapters)
    ends = torch.cumsum(packing.lengths, 0).tolist()
    segments = [Segment(ends[a] - len(ids[a]), ends[b - 1], adapters[a].layers) for a, b in groups if adapters[a].layers]
    with torch.inference_mode():
        last = run_layers(base, embed_tokens(base, ids, packing), packing, range(len(base.layers)), segments)  # [T, hidden]
        pooled = pool(last, packing)  # [T, hidden] -> [rows, hidden]
        logits: list[Tensor] = [row for a, b in groups for row in adapters[a].head.logits(pooled[a:b])]
    vectors = pooled.numpy()
    return [Output(row.numpy()[None], vectors[i : i + 1]) for i, row in enumerate(logits)]


def _groups(adapters: Sequence[LoadedAdapter]) -> list[tuple[int, int]]:
    """Start and stop of each run of rows of the same adapter."""
    starts = [i for i in range(len(adapters)) if i == 0 or adapters[i] is not adapters[i - 1]]
    return list(zip(starts, [*starts[1:], len(adapters)], strict=True))


def _answers(adapter: LoadedAdapter, output: Output) -> list[Answer]:
    shifted = np.exp(output.logits - output.logits.max(1, keepdims=True))
    best = output.logits.argmax(1)
    confidence = shifted[np.arange(len(best)), best] / shifted.sum(1)
    embeddings = output.pooled.astype(np.float16)
    return [
        Answer(prediction=Prediction(label=adapter.manifest.labels[k], confidence=min(1.0, float(p))), embedding=vector)
        for k, p, vector in zip(best.tolist(), confidence, embeddings, strict=True)
    ]


def _joined(outputs: Sequence[Output]) -> Output:
    return Output(np.concatenate([one.logits for one in outputs]), np.concatenate([one.pooled for one in outputs]))
