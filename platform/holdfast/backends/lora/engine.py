"""The engine: one base in memory, many adapters on it, and batches that mix them answered in one pass."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from holdfast.backends.lora.base_model import BaseModel, use_threads
from holdfast.backends.lora.decoding import Output, answers_of, outputs_of, sealed_row
from holdfast.backends.lora.encoder import LayerLora, Packing, Segment, embed_tokens, pool, run_layers
from holdfast.backends.lora.files import HEAD_NAME, load_tensors, read_fingerprint, read_manifest
from holdfast.backends.lora.fingerprint import Observed, difference, probes_for, seal, stamp
from holdfast.backends.lora.head import Head
from holdfast.backends.lora.lora_format import fuse, read_lora
from holdfast.backends.lora.prefix_cache import FrozenPrefix, by_length
from holdfast.domain.adapters import Fingerprint, Manifest, adapter_digest
from holdfast.domain.ids import AdapterDigest, TaskName, base_asked
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
        adapters = self._with_bare(self._adapters, questions)  # one look: a swap meanwhile does not split this batch
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
            adapter, texts = adapters[digest], [questions[i].text for i in rows]
            found = answers_of(adapter.base, [(adapter.manifest, text) for text in texts], self._frozen_outputs(adapter, texts))
            answers |= dict(zip(rows, found, strict=True))
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
        wanted = {"weight": (manifest.output_count, base.hidden), "bias": (manifest.output_count,)}
        if found != wanted:
            raise AdapterRefused(folder=folder, reason=f"its head is {found}; its labels and base ask for {wanted}")
        layers = {} if manifest.rung == "head" else fuse(read_lora(folder, base))
        return LoadedAdapter(manifest, base, Head(tensors["weight"], tensors["bias"]), layers)

    def fingerprint(self, adapter: LoadedAdapter) -> Fingerprint:
        """What is sealed of a version when it is judged."""
        probes = probes_for(adapter.manifest.max_tokens)
        return seal(self._observed(adapter, probes), probes)

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

    def _with_bare(
        self, adapters: Mapping[AdapterDigest, LoadedAdapter], questions: Sequence[Question]
    ) -> Mapping[AdapterDigest, LoadedAdapter]:
        """The adapters, and for every base that is asked without one an adapter that changes nothing and knows one empty label."""
        asked = {question.digest: name for question in questions if (name := base_asked(question.digest)) is not None}
        if not asked:
            return adapters
        if unknown := [name for name in asked.values() if name not in self._bases]:
            raise NotFound(kind="base", name=unknown[0])
        return {**adapters, **{digest: _bare_adapter(self.base(name)) for digest, name in asked.items()}}

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
        why = difference(sealed, self._observed(adapter, sealed.probes, base=not quick), adapter.manifest)
        if why is not None:
            raise AdapterRefused(folder=folder, reason=difference(sealed, self._observed(adapter, sealed.probes), adapter.manifest) or why)
        return Proof(adapter, folder, sealed, lay)

    def _observed(self, adapter: LoadedAdapter, probes: Sequence[str], *, base: bool = True) -> Observed:
        """What the adapter, and the bare base in the same batch, make of the probes."""
        bare = replace(adapter, layers={})
        outputs = self._outputs([(adapter, text) for text in probes] + [(bare, text) for text in probes if base])
        own, under = outputs[: len(probes)], outputs[len(probes) :]
        answers = answers_of(adapter.base, [(adapter.manifest, text) for text in probes], own)
        return Observed(
            token_ids=adapter.base.token_ids(probes, adapter.manifest.max_tokens),
            base=np.concatenate([one.pooled for one in under]) if under else None,
            pooled=np.concatenate([one.pooled for one in own]),
            logits=np.stack([sealed_row(one) for one in own]),
            answers=tuple(one.prediction.label for one in answers),
        )

    def _frozen_outputs(self, adapter: LoadedAdapter, texts: Sequence[str]) -> list[Output]:
        frozen = self.frozen(adapter.base, adapter.manifest.max_tokens)
        if adapter.manifest.kind != "extraction":
            return outputs_of(adapter.manifest, adapter.head, (), torch.from_numpy(frozen.pooled(texts)))
        states = [one.float() for one in frozen.hidden(texts, len(adapter.base.layers))]
        return outputs_of(adapter.manifest, adapter.head, states, torch.stack([one.mean(0) for one in states]))

    def _mixed(self, pairs: Sequence[tuple[LoadedAdapter, str]]) -> list[Answer]:
        return answers_of(pairs[0][0].base, [(adapter.manifest, text) for adapter, text in pairs], self._outputs(pairs))

    def _outputs(self, pairs: Sequence[tuple[LoadedAdapter, str]]) -> list[Output]:
        """One output per pair of adapters of one base, in order; batches of similar length, each sorted by adapter."""
        base = pairs[0][0].base
        counted = _token_ids(base, pairs)
        ids, whole = [one for one, _ in counted], [count for _, count in counted]
        found: dict[int, Output] = {}
        for batch in by_length([len(one) for one in ids]):
            place = {id(pairs[i][0]): at for at, i in enumerate(batch)}
            rows = sorted(batch, key=lambda i: place[id(pairs[i][0])])
            found |= dict(zip(rows, _one_pass(base, [pairs[i][0] for i in rows], [ids[i] for i in rows]), strict=True))
        return [replace(found[i], tokens=(whole[i], len(ids[i]))) for i in range(len(pairs))]


def _bare_adapter(base: BaseModel) -> LoadedAdapter:
    manifest = Manifest(
        task=TaskName(""), rung="head", base=base.name, base_digest=base.digest, labels=("",), max_tokens=int(base.positions.shape[0]),
        files={},
    )  # fmt: skip
    return LoadedAdapter(manifest, base, Head(torch.zeros(1, base.hidden), torch.zeros(1)), {})


def _token_ids(base: BaseModel, pairs: Sequence[tuple[LoadedAdapter, str]]) -> list[tuple[list[int], int]]:
    by_limit: dict[int, list[int]] = {}
    for i, (adapter, _) in enumerate(pairs):
        by_limit.setdefault(adapter.manifest.max_tokens, []).append(i)
    ids: dict[int, tuple[list[int], int]] = {}
    for limit, rows in by_limit.items():
        ids |= dict(zip(rows, base.counted_ids([pairs[i][1] for i in rows], limit), strict=True))
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
        states = torch.split(last, packing.lengths.tolist())
        return [one for a, b in groups for one in outputs_of(adapters[a].manifest, adapters[a].head, states[a:b], pooled[a:b])]


def _groups(adapters: Sequence[LoadedAdapter]) -> list[tuple[int, int]]:
    """Start and stop of each run of rows of the same adapter."""
    starts = [i for i in range(len(adapters)) if i == 0 or adapters[i] is not adapters[i - 1]]
    return list(zip(starts, [*starts[1:], len(adapters)], strict=True))
