"""Proofs of the versions of one engine: each answers what was sealed of it when it is loaded, and again whenever its weights were touched.

What a version answers by is looked at where it is used: its row in a bank, the form of the base's weights that was chosen here, and
the copy of the base that it may be merged into. Answers in 8 bits have no fingerprint; their loss was measured and accepted (`int8_trial`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from holdfast.backends.lora.base_model import BaseModel
from holdfast.backends.lora.decoding import Output, answers_of, sealed_row
from holdfast.backends.lora.entries import Entry
from holdfast.backends.lora.favourite import Favourite
from holdfast.backends.lora.fingerprint import Observed, difference, stamp
from holdfast.backends.lora.layouts import LoadedAdapter
from holdfast.backends.lora.residency import Residency
from holdfast.backends.lora.serving_pass import Way
from holdfast.domain.adapters import Fingerprint
from holdfast.domain.ids import AdapterDigest
from holdfast.errors import AdapterRefused

Run = Callable[[Sequence[tuple[LoadedAdapter, str]], Way, bool], list[Output]]
"""One output per pair of adapters of one base, by a way; true where the way holds their LoRA."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What a version is proved against, and what it was proved on."""

    entry: Entry
    folder: Path
    sealed: Fingerprint
    base: tuple[int, ...]
    """How the weights of its base lay when the proof began."""


class Proofs:
    """Any thread may ask.

    Args:
        residency: where the versions are.
        way: how a base is run for exact answers.
        run: answers.
    """

    def __init__(self, residency: Residency, way: Callable[[BaseModel], Way], run: Run) -> None:
        self._residency, self._way, self._run = residency, way, run
        self.favourite = Favourite(self._answers_alike)
        self._proofs: dict[AdapterDigest, Proof] = {}
        self._lock = threading.Lock()

    def register(self, adapter: LoadedAdapter, folder: Path, sealed: Fingerprint) -> None:
        """Prove an adapter that was read, and make it answerable. Raises AdapterRefused; what was answerable stays."""
        base = self._check(adapter, folder, sealed)
        with self._lock:
            entry = self._residency.register(adapter, folder)
            self._proofs[adapter.digest] = Proof(entry, folder, sealed, base)

    def forget(self, digest: AdapterDigest) -> None:
        """It answers no more."""
        with self._lock:
            self._residency.forget(digest)
            self._proofs.pop(digest, None)
        self.favourite.forget(digest)

    def prove(self, digest: AdapterDigest) -> None:
        """Prove a version again. Raises AdapterRefused, NotFound (kind `adapter`)."""
        with self._residency.held(digest) as (entry, adapter):
            proof = self._proofs.get(digest)
            if proof is None:
                raise AdapterRefused(folder=entry.folder, reason="it was never proved")
            base = self._check(adapter, proof.folder, proof.sealed, quick=True)
            self._check_merged(adapter, proof)
        with self._lock:
            if self._proofs.get(digest) is proof:
                self._proofs[digest] = replace(proof, entry=entry, base=base)

    def touched(self, digests: AbstractSet[AdapterDigest]) -> frozenset[AdapterDigest]:
        """Those of the loaded ``digests`` of which something was written to or replaced since their last proof."""
        bases: dict[str, tuple[int, ...]] = {}
        found = set()
        for entry, written in self._residency.entries(digests):
            if entry.base.name not in bases:
                bases[entry.base.name] = self._laid(entry.base)
            proof, merged = self._proofs.get(entry.digest), self.favourite.of(entry.digest)
            proved = proof is not None and proof.entry is entry and proof.base == bases[entry.base.name]
            if written or not proved or (merged is not None and merged.touched):
                found.add(entry.digest)
        return frozenset(found)

    def observed(self, adapter: LoadedAdapter, probes: Sequence[str], *, base: bool = True) -> Observed:
        """What the adapter, and the bare base in the same batch, make of the probes."""
        bare = replace(adapter, layout=replace(adapter.layout, rank=0, places=()))  # the head lies where it lay
        pairs = [(adapter, text) for text in probes] + [(bare, text) for text in probes if base]
        outputs = self._run(pairs, self._way(adapter.base), False)
        return _observed(adapter, probes, outputs[: len(probes)], outputs[len(probes) :])

    def _check(self, adapter: LoadedAdapter, folder: Path, sealed: Fingerprint, *, quick: bool = False) -> tuple[int, ...]:
        """How the base lay before the look. ``quick`` looks at the bare base only when something is off, to name the cause.

        Raises AdapterRefused.
        """
        laid = self._laid(adapter.base)  # before the look: a write during it asks for another proof
        why = difference(sealed, self.observed(adapter, sealed.probes, base=not quick), adapter.manifest)
        if why is not None:
            raise AdapterRefused(folder=folder, reason=difference(sealed, self.observed(adapter, sealed.probes), adapter.manifest) or why)
        return laid

    def _check_merged(self, adapter: LoadedAdapter, proof: Proof) -> None:
        """A merged copy that was touched, or no longer answers alike, is dropped; the row goes on. Raises AdapterRefused for the latter."""
        merged = self.favourite.of(adapter.digest)
        if merged is None:
            return
        why = self._merged_difference(adapter, merged.way, proof.sealed)
        if why is not None:
            raise AdapterRefused(folder=proof.folder, reason=f"{why}, in the copy of the base that it is merged into")
        if merged.touched:
            self.favourite.forget(adapter.digest)

    def _answers_alike(self, adapter: LoadedAdapter, way: Way) -> bool:
        """Whether a version answers by a copy of the base that it was merged into as it was sealed."""
        proof = self._proofs.get(adapter.digest)
        why = "it is not loaded any more" if proof is None else self._merged_difference(adapter, way, proof.sealed)
        if why is not None:
            _log.warning("%s is not merged into a base of its own: %s", adapter.digest, why)
        return why is None

    def _merged_difference(self, adapter: LoadedAdapter, way: Way, sealed: Fingerprint) -> str | None:
        outputs = self._run([(adapter, text) for text in sealed.probes], way, True)
        return difference(sealed, _observed(adapter, sealed.probes, outputs, ()), adapter.manifest)

    def _laid(self, base: BaseModel) -> tuple[int, ...]:
        return stamp(base.tensors) + stamp(self._way(base).linears.tensors)


def _observed(adapter: LoadedAdapter, probes: Sequence[str], own: Sequence[Output], under: Sequence[Output]) -> Observed:
    answers = answers_of(adapter.base, [(adapter.manifest, text) for text in probes], own)
    return Observed(
        token_ids=adapter.base.token_ids(probes, adapter.manifest.max_tokens),
        base=np.concatenate([one.pooled for one in under]) if under else None,
        pooled=np.concatenate([one.pooled for one in own]),
        logits=np.stack([sealed_row(one) for one in own]),
        answers=tuple(one.prediction.label for one in answers),
    )
