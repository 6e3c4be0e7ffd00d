"""The engine: one base in memory, many adapters on it, and batches that mix them answered in one pass."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from holdfast.backends.lora.base_model import BaseModel, use_threads
from holdfast.backends.lora.decoding import Output, answers_of, margin, outputs_of, sealed_row
from holdfast.backends.lora.favourite import Favourite
from holdfast.backends.lora.files import HEAD_NAME, load_tensors, read_fingerprint, read_manifest
from holdfast.backends.lora.head import Head
from holdfast.backends.lora.int8_trial import Int8Trials
from holdfast.backends.lora.layouts import LoadedAdapter, layout_of, row_of
from holdfast.backends.lora.linears import Int8Linears, all_weights
from holdfast.backends.lora.lora_format import read_lora
from holdfast.backends.lora.paths import choose_way
from holdfast.backends.lora.prefix_cache import FrozenPrefix
from holdfast.backends.lora.residency import Residency
from holdfast.backends.lora.serving_pass import Way, cut, run_pass
from holdfast.domain.adapters import Fingerprint, Manifest, adapter_digest
from holdfast.domain.ids import AdapterDigest
from holdfast.errors import AdapterRefused, BaseModelRefused
from holdfast.ports import Answer, Question, Tier

FINGERPRINT_TOLERANCE = 1e-3
"""Largest difference of a logit from the sealed one; other processors round differently, other weights are far off."""
PROBES = (
    "",
    "Where is the order I placed last week?",
    "The invoice shows a fee that nobody told me about, and I would like to know why it was charged twice this month.",
    "Ünïcode, 12.5% & <tags> — 测试",
)
"""Texts of every fingerprint: nothing, short, long, and odd."""


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
        self._favourite = Favourite()
        loss, folder = self._options.int8_loss, self._options.code_folder
        self._trials = None if loss is None or folder is None else Int8Trials(loss, folder, self._tried)
        self._lanes = threads if serving is not None else 1
        self._pool = ThreadPoolExecutor(self._lanes, thread_name_prefix="pass") if self._lanes > 1 else None

    def load(self, digest: AdapterDigest, folder: Path) -> None:
        """Load beside what is there and prove it by its fingerprint. Raises AdapterRefused; what was loaded stays."""
        adapter = self.read(folder)
        if adapter.digest != digest:
            raise AdapterRefused(folder=folder, reason=f"it is {adapter.digest}, not {digest}")
        sealed = read_fingerprint(folder)
        _prove(folder, adapter.manifest, sealed, self.fingerprint(adapter, sealed.probes))
        self._residency.register(adapter, folder)
        if self._trials is not None:
            self._trials.begin(adapter, folder)

    def unload(self, digest: AdapterDigest) -> None:
        """Forget it; a batch that is under way keeps what it began with."""
        self._residency.forget(digest)

    def loaded(self) -> frozenset[AdapterDigest]:
        """Digests of what answers."""
        return self._residency.registered()

    def resident(self) -> Mapping[AdapterDigest, Tier]:
        """Where each loaded adapter is now."""
        return self._residency.tiers()

    def pin(self, digest: AdapterDigest) -> bool:
        """Never let it leave the bank; false when no room would be left for others. Raises NotFound (kind `adapter`)."""
        return self._residency.pin(digest)

    def unpin(self, digest: AdapterDigest) -> None:
        """Raises NotFound (kind `adapter`)."""
        self._residency.unpin(digest)

    def close(self) -> None:
        """End the threads of this engine."""
        self._residency.close()
        if self._trials is not None:
            self._trials.close()
        if self._pool is not None:
            self._pool.shutdown()

    def answer(self, questions: Sequence[Question]) -> tuple[Answer, ...]:
        """In the order asked. Raises NotFound (kind `adapter`) when a digest is not loaded."""
        answers: dict[int, Answer] = {}
        with self._residency.claim({question.digest for question in questions}) as steps:
            for here in steps:  # what is in a bank first; the loader brings the others meanwhile
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

    def fingerprint(self, adapter: LoadedAdapter, probes: Sequence[str] = PROBES) -> Fingerprint:
        """What an adapter answers on the probes, by the path of serving."""
        outputs = self._outputs([(adapter, text) for text in probes], int8=False)
        answers = answers_of(adapter.base, [(adapter.manifest, text) for text in probes], outputs)
        scores = tuple(tuple(float(one) for one in sealed_row(output)) for output in outputs)
        return Fingerprint(probes=tuple(probes), labels=tuple(one.prediction.label for one in answers), scores=scores)

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

    def _frozen_outputs(self, adapter: LoadedAdapter, texts: Sequence[str]) -> list[Output]:
        frozen = self.frozen(adapter.base, adapter.manifest.max_tokens)
        head = adapter.layout.head(adapter.row)
        if adapter.manifest.kind != "extraction":
            return outputs_of(adapter.manifest, head, (), torch.from_numpy(frozen.pooled(texts)))
        states = [one.float() for one in frozen.hidden(texts, len(adapter.base.layers))]
        return outputs_of(adapter.manifest, head, states, torch.stack([one.mean(0) for one in states]))

    def _outputs(self, pairs: Sequence[tuple[LoadedAdapter, str]], *, int8: bool | None = None) -> list[Output]:
        """One output per pair of adapters of one base, in order. ``int8`` forces or forbids 8 bits; else trials decide."""
        base, adapters = pairs[0][0].base, [adapter for adapter, _ in pairs]
        ids = _token_ids(base, pairs)
        todo = [
            (way, merged, some)
            for way, merged, rows in self._ways_of(base, adapters, int8)
            for some in cut(way, rows, adapters, ids, self._lanes)
        ]

        def run(one: tuple[Way, bool, list[int]]) -> list[Output]:
            return run_pass(base, one[0], [adapters[i] for i in one[2]], [ids[i] for i in one[2]], one[1])

        made = map(run, todo) if self._pool is None or len(todo) < 2 else self._pool.map(run, todo)
        found = {i: output for (_, _, rows), outputs in zip(todo, made, strict=True) for i, output in zip(rows, outputs, strict=True)}
        return [found[i] for i in range(len(pairs))]

    def _ways_of(self, base: BaseModel, adapters: Sequence[LoadedAdapter], int8: bool | None) -> list[tuple[Way, bool, list[int]]]:
        """Which rows go which way, and whether that way holds their LoRA."""
        everything = list(range(len(adapters)))
        if int8 is not None:
            return [(self._int8_way(base) if int8 else self._way(base), False, everything)]
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
        outputs = self._outputs([(adapter, text) for text in texts], int8=int8)
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


def _token_ids(base: BaseModel, pairs: Sequence[tuple[LoadedAdapter, str]]) -> list[list[int]]:
    by_limit: dict[int, list[int]] = {}
    for i, (adapter, _) in enumerate(pairs):
        by_limit.setdefault(adapter.manifest.max_tokens, []).append(i)
    ids: dict[int, list[int]] = {}
    for limit, rows in by_limit.items():
        ids |= dict(zip(rows, base.token_ids([pairs[i][1] for i in rows], limit), strict=True))
    return [ids[i] for i in range(len(pairs))]


def _prove(folder: Path, manifest: Manifest, sealed: Fingerprint, found: Fingerprint) -> None:
    """Compare what the adapter answers now with what was sealed. A label may differ only where the sealed logits tie."""
    if any(len(a) != len(b) for a, b in zip(sealed.scores, found.scores, strict=True)):
        raise AdapterRefused(folder=folder, reason="its fingerprint has another number of labels")
    gaps = np.abs(np.array(sealed.scores) - np.array(found.scores))
    if float(gaps.max()) > FINGERPRINT_TOLERANCE:
        raise AdapterRefused(folder=folder, reason=f"it does not answer as it did when it was judged (a logit is off by {gaps.max():.3g})")
    for row, before, now in zip(sealed.scores, sealed.labels, found.labels, strict=True):
        if before != now and margin(manifest, row) > 2 * FINGERPRINT_TOLERANCE:
            raise AdapterRefused(folder=folder, reason=f"it answers {now!r} to a probe where {before!r} was sealed")
