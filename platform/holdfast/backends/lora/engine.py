"""The engine: one base in memory, many adapters on it, and batches that mix them answered in one pass."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch

from holdfast.backends.lora.base_model import BaseModel, use_threads
from holdfast.backends.lora.decoding import Output, answers_of, outputs_of
from holdfast.backends.lora.files import HEAD_NAME, load_tensors, read_fingerprint, read_manifest
from holdfast.backends.lora.fingerprint import probes_for, seal
from holdfast.backends.lora.head import Head
from holdfast.backends.lora.int8_trial import Int8Trials
from holdfast.backends.lora.layouts import LoadedAdapter, layout_of, row_of
from holdfast.backends.lora.linears import Int8Linears, all_weights
from holdfast.backends.lora.lora_format import read_lora
from holdfast.backends.lora.paths import choose_way
from holdfast.backends.lora.prefix_cache import FrozenPrefix
from holdfast.backends.lora.proofs import Proofs
from holdfast.backends.lora.residency import Residency
from holdfast.backends.lora.serving_pass import Way, cut, run_pass
from holdfast.domain.adapters import Fingerprint, Manifest, adapter_digest
from holdfast.domain.ids import AdapterDigest, TaskName, bare, base_asked
from holdfast.errors import AdapterRefused, BaseModelRefused, NotFound
from holdfast.ports import Answer, Question, Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """How an engine that serves uses its machine."""

    code_folder: Path | None = None
    """Cache of compiled code and of measured ways; without it answers take the plainest way."""
    way: str | None = None
    """Forces a way (see `paths`); None lets measurement choose."""
    bank_bytes: int = 4 << 30
    """What the weights of adapters may take where they are computed with. Memory is taken only as it fills."""
    host_bytes: int = 1 << 30
    """What is kept of adapters that had to leave."""
    int8_loss: float | None = None
    """Share of right answers that an adapter may lose by answering in 8 bits; None: always exact. Needs a code folder."""


class LoraEngine:
    """Implements ports.InferenceEngine. Every method may be called from any thread, answers from several at once.

    Args:
        bases: base name to path (a folder, or ``package:NAME``) and the pinned SHA-256 of its weights. Opened on first use.
        threads: torch threads of this process; of an engine that serves, passes that run side by side with one thread each.
        cache_folder: where given, head-only adapters answer from the cache of pooled vectors, which grows with every new
            text: for replays and scoring, not for serving. Such an engine answers from one thread.
        serving: given where the engine serves.
    """

    def __init__(
        self,
        bases: Mapping[str, tuple[str, str]],
        threads: int,
        *,
        cache_folder: Path | None = None,
        serving: ServingOptions | None = None,
    ) -> None:
        use_threads(threads if serving is None else 1)
        self._bases = dict(bases)
        self._cache_folder = cache_folder
        self._frozen: dict[tuple[str, int], FrozenPrefix] = {}
        self._options = serving or ServingOptions()
        self._ways: dict[str, Way] = {}
        self._lock = threading.Lock()
        self._residency = Residency(
            lambda folder: self.read(folder).row, bank_bytes=self._options.bank_bytes, host_bytes=self._options.host_bytes
        )
        self._proofs = Proofs(self._residency, self._way, self._run)
        self._favourite = self._proofs.favourite
        loss, folder = self._options.int8_loss, self._options.code_folder
        self._trials = None if loss is None or folder is None else Int8Trials(loss, folder, self._tried)
        self._lanes = threads if serving is not None else 1
        self._pool = ThreadPoolExecutor(self._lanes, thread_name_prefix="pass") if self._lanes > 1 else None

    def load(self, digest: AdapterDigest, folder: Path) -> None:
        """Load beside what is there and prove it by its fingerprint. Raises AdapterRefused; what was loaded stays."""
        adapter = self.read(folder)
        if adapter.digest != digest:
            raise AdapterRefused(folder=folder, reason=f"it is {adapter.digest}, not {digest}")
        self._proofs.register(adapter, folder, read_fingerprint(folder))
        if self._trials is not None:
            self._trials.begin(adapter, folder)

    def prove(self, digest: AdapterDigest) -> None:
        """Compare what a loaded version answers now with what was sealed. Raises AdapterRefused, NotFound (kind `adapter`)."""
        self._proofs.prove(digest)

    def touched(self, digests: AbstractSet[AdapterDigest]) -> frozenset[AdapterDigest]:
        """Those of the loaded ``digests`` whose weights, or whose base's, were written to or replaced since they were proved."""
        return self._proofs.touched(digests)

    def unload(self, digest: AdapterDigest) -> None:
        """Forget it; a batch that is under way keeps what it began with."""
        self._proofs.forget(digest)

    def loaded(self) -> frozenset[AdapterDigest]:
        """Digests of what answers."""
        return self._residency.registered()

    def resident(self) -> Mapping[AdapterDigest, Tier]:
        """Where each loaded adapter is now."""
        return self._residency.tiers()

    def pin(self, digests: AbstractSet[AdapterDigest]) -> None:
        """These, loaded or not yet, leave their bank after all others; those pinned before no longer do."""
        self._residency.pin(digests)

    def close(self) -> None:
        """End the threads of this engine."""
        self._residency.close()
        if self._trials is not None:
            self._trials.close()
        if self._pool is not None:
            self._pool.shutdown()

    def answer(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        """In the order asked. Raises NotFound (kind `adapter`) when a digest is not loaded, kind `base` for a base that is not named."""
        answers: dict[int, Answer] = {}
        asked = {question.digest for question in questions}
        bases = {digest: self._bare_adapter(name) for digest in asked if (name := base_asked(digest)) is not None}
        with self._residency.claim(asked - bases.keys()) as steps:
            for here in chain([bases], steps) if bases else steps:  # what is in a bank first; the loader brings the others meanwhile
                rows = [i for i, question in enumerate(questions) if question.digest in here]
                pairs = [(here[questions[i].digest], questions[i].text) for i in rows]
                answers |= dict(zip(rows, self._answers(pairs), strict=True))
        return tuple(answers[i] for i in range(len(questions)))

    def _answers(self, pairs: Sequence[tuple[LoadedAdapter, str]]) -> list[Answer]:
        """One answer per pair, in order, of whatever bases."""
        found: dict[int, Answer] = {}
        by_source: dict[tuple[str, AdapterDigest | None], list[int]] = {}
        for i, (adapter, _) in enumerate(pairs):
            cached = self._cache_folder is not None and not adapter.layout.places
            by_source.setdefault((adapter.base.name, adapter.digest if cached else None), []).append(i)
        for (_, digest), rows in by_source.items():
            some = [pairs[i] for i in rows]
            outputs = self._outputs(some) if digest is None else self._frozen_outputs(some[0][0], [text for _, text in some])
            made = answers_of(some[0][0].base, [(adapter.manifest, text) for adapter, text in some], outputs)
            found |= dict(zip(rows, made, strict=True))
        return [found[i] for i in range(len(pairs))]

    def read(self, folder: Path) -> LoadedAdapter:
        """The adapter of a folder, checked in form but not yet by its fingerprint. Raises AdapterRefused."""
        manifest = read_manifest(folder)
        base = self._base(folder, manifest)
        tensors = load_tensors(folder / HEAD_NAME)
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        wanted = {"weight": (manifest.output_count, base.hidden), "bias": (manifest.output_count,)}
        if found != wanted:
            raise AdapterRefused(folder=folder, reason=f"its head is {found}; its labels and base ask for {wanted}")
        head, lora = Head(tensors["weight"], tensors["bias"]), None if manifest.rung == "head" else read_lora(folder, base)
        layout = layout_of(base, head, lora)
        return LoadedAdapter(adapter_digest(manifest), manifest, base, layout, row_of(layout, head, lora))

    def fingerprint(self, adapter: LoadedAdapter) -> Fingerprint:
        """What is sealed of a version when it is judged, by the path of serving."""
        probes = probes_for(adapter.manifest.max_tokens)
        return seal(self._proofs.observed(adapter, probes), probes)

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

    def _bare_adapter(self, name: str) -> LoadedAdapter:
        """What stands for an adapter where a base is asked without one: it changes nothing and knows one empty label. Raises NotFound."""
        if name not in self._bases:
            raise NotFound(kind="base", name=name)
        base = self.base(name)
        manifest = Manifest(
            task=TaskName(""), rung="head", base=name, base_digest=base.digest, labels=("",), max_tokens=int(base.positions.shape[0]),
            files={},
        )  # fmt: skip
        head = Head(torch.zeros(1, base.hidden), torch.zeros(1))
        layout = layout_of(base, head, None)
        return LoadedAdapter(bare(name), manifest, base, layout, row_of(layout, head, None))

    def _base(self, folder: Path, manifest: Manifest) -> BaseModel:
        base = self.base(manifest.base)
        if manifest.base_digest.removeprefix("sha256:") != base.digest:
            raise AdapterRefused(folder=folder, reason=f"it was trained on {manifest.base_digest}, the base here is {base.digest}")
        return base

    def _frozen_outputs(self, adapter: LoadedAdapter, texts: Sequence[str]) -> list[Output]:
        frozen = self.frozen(adapter.base, adapter.manifest.max_tokens)
        head = adapter.layout.head(adapter.row)
        if adapter.manifest.kind != "extraction":
            return outputs_of(adapter.manifest, head, (), torch.from_numpy(frozen.pooled(texts)))
        states = [one.float() for one in frozen.hidden(texts, len(adapter.base.layers))]
        return outputs_of(adapter.manifest, head, states, torch.stack([one.mean(0) for one in states]))

    def _outputs(self, pairs: Sequence[tuple[LoadedAdapter, str]]) -> list[Output]:
        """One output per pair of adapters of one base, in order, each by the way that is best for its adapter."""
        return self._by(pairs, self._ways_of(pairs[0][0].base, [adapter for adapter, _ in pairs]))

    def _run(self, pairs: Sequence[tuple[LoadedAdapter, str]], way: Way, merged: bool) -> list[Output]:
        """The same, all by one way; ``merged`` where it holds their LoRA."""
        return self._by(pairs, [(way, merged, list(range(len(pairs))))])

    def _by(self, pairs: Sequence[tuple[LoadedAdapter, str]], ways: Sequence[tuple[Way, bool, list[int]]]) -> list[Output]:
        base, adapters = pairs[0][0].base, [adapter for adapter, _ in pairs]
        counted = _token_ids(base, pairs)
        ids = [one for one, _ in counted]
        todo = [(way, merged, some) for way, merged, rows in ways for some in cut(way, rows, adapters, ids, self._lanes)]

        def run(one: tuple[Way, bool, list[int]]) -> list[Output]:
            return run_pass(base, one[0], [adapters[i] for i in one[2]], [ids[i] for i in one[2]], one[1])

        made = map(run, todo) if self._pool is None or len(todo) < 2 else self._pool.map(run, todo)
        found = {i: output for (_, _, rows), outputs in zip(todo, made, strict=True) for i, output in zip(rows, outputs, strict=True)}
        return [replace(found[i], tokens=(whole, len(some))) for i, (some, whole) in enumerate(counted)]

    def _ways_of(self, base: BaseModel, adapters: Sequence[LoadedAdapter]) -> list[tuple[Way, bool, list[int]]]:
        """Which rows go which way, and whether that way holds their LoRA."""
        everything = range(len(adapters))
        accepted = frozenset[AdapterDigest]() if self._trials is None else self._trials.accepted()
        small = [i for i in everything if adapters[i].digest in accepted]
        exact = [i for i in everything if adapters[i].digest not in accepted]
        merged = self._favourite.merged([adapters[i] for i in exact], self._way(base))
        own = [i for i in exact if merged is not None and adapters[i].digest == merged.digest]
        found = [(self._way(base), False, [i for i in exact if i not in set(own)])]
        if merged is not None:
            found.append((merged.way, True, own))
        if small:
            found.append((self._int8_way(base), False, small))
        return found

    def _tried(self, adapter: LoadedAdapter, texts: Sequence[str], int8: bool) -> list[str]:
        """An adapter's answers to texts, exact or in 8 bits: for trials."""
        way = self._int8_way(adapter.base) if int8 else self._way(adapter.base)
        outputs = self._run([(adapter, text) for text in texts], way, False)
        return [one.prediction.label for one in answers_of(adapter.base, [(adapter.manifest, text) for text in texts], outputs)]

    def _way(self, base: BaseModel) -> Way:
        with self._lock:
            if base.name not in self._ways:
                self._ways[base.name] = choose_way(base, self._options.code_folder, self._options.way)
            return self._ways[base.name]

    def _int8_way(self, base: BaseModel) -> Way:
        exact = self._way(base)
        with self._lock:
            key = f"{base.name}, int8"
            if key not in self._ways:
                self._ways[key] = Way("int8", Int8Linears(all_weights(base)), exact.steps)
            return self._ways[key]


def _token_ids(base: BaseModel, pairs: Sequence[tuple[LoadedAdapter, str]]) -> list[tuple[list[int], int]]:
    """Per pair the ids that are read, and the number of tokens of the whole text."""
    by_limit: dict[int, list[int]] = {}
    for i, (adapter, _) in enumerate(pairs):
        by_limit.setdefault(adapter.manifest.max_tokens, []).append(i)
    ids: dict[int, tuple[list[int], int]] = {}
    for limit, rows in by_limit.items():
        ids |= dict(zip(rows, base.counted_ids([pairs[i][1] for i in rows], limit), strict=True))
    return [ids[i] for i in range(len(pairs))]
