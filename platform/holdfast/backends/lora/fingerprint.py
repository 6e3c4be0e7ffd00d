"""Fingerprints: what is sealed of a version when it is judged, and how a loaded one is proved against it.

Of the engine this needs only what it makes of a few texts: token ids, pooled vectors of the bare base and of the adapter, logits.
Parts are compared in the order in which an answer is made, so that the first that differs is the cause and not a consequence.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.backends.lora.decoding import margin
from holdfast.domain.adapters import Fingerprint, Manifest

LOGIT_TOLERANCE = 1e-3
"""Largest difference of a logit from the sealed one; other processors round differently, other weights are far off."""
VECTOR_TOLERANCE = 1e-4
"""The same of a projected pooled vector, whose values are smaller than logits."""
PROJECTED = 8
"""Values kept of a pooled vector."""
PROBES = (
    "",
    "Where is the order I placed last week?",
    "The invoice shows a fee that nobody told me about, and I would like to know why it was charged twice this month.",
    "Ünïcode, 12.5% & <tags> — 测试",
)
"""Texts of every fingerprint: nothing, short, long, and odd."""
_WORDS = "the parcel 17 that I ordered came late and broken, again; "
"""Repeated until it is longer than the adapter reads: 12 tokens or more in any tokenizer that has no word for it all."""
_ALIKE = "it does not answer as it did when it was judged: "


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """What an engine makes of the probes, by the path of serving."""

    token_ids: Sequence[Sequence[int]]
    base: NDArray[np.float32] | None
    """[probes, hidden], pooled by the bare base; None when it was not looked at."""
    pooled: NDArray[np.float32]
    """[probes, hidden], with the adapter on the base."""
    logits: NDArray[np.float32]
    """[probes, outputs of the head]; of a head on tokens the highest over the tokens of a probe."""
    answers: tuple[str, ...]
    """Per probe, in its canonical text."""


def probes_for(max_tokens: int) -> tuple[str, ...]:
    """The probes of an adapter that reads ``max_tokens`` tokens; the last one is longer than that."""
    return (*PROBES, _WORDS * (max_tokens // 12 + 2))


def seal(observed: Observed, probes: Sequence[str]) -> Fingerprint:
    """The fingerprint of a version from what an engine made of the probes."""
    assert observed.base is not None, "a fingerprint seals the bare base too"
    return Fingerprint(
        probes=tuple(probes),
        token_counts=tuple(len(ids) for ids in observed.token_ids),
        token_digest=_digest(observed.token_ids),
        base=_plain(_projected(observed.base)),
        pooled=_plain(_projected(observed.pooled)),
        labels=observed.answers,
        scores=_plain(observed.logits),
    )


def difference(sealed: Fingerprint, observed: Observed, manifest: Manifest) -> str | None:
    """Why what answers now is not what was sealed; None when it is. NaN differs from everything."""
    if len(observed.token_ids) != len(sealed.probes) or observed.logits.shape[1:] != (len(sealed.scores[0]),):
        return f"its fingerprint is of {len(sealed.scores[0])} outputs, it has {observed.logits.shape[-1]}"
    return (
        _of_tokens(sealed, observed.token_ids)
        or _of_base(sealed, observed)
        or _of_adapter(sealed, observed)
        or _of_head(sealed, observed, manifest)
    )


def stamp(tensors: Iterable[Tensor]) -> tuple[int, ...]:
    """Where tensors lie and how often they were written to, about 0.4 µs each: another stamp asks for another proof.

    What torch did not write (a flipped bit, a write through NumPy) shows in the next proof only.
    """
    return tuple(one for tensor in tensors for one in (_address(tensor), 0 if tensor.is_inference() else tensor._version))


def _address(tensor: Tensor) -> int:
    """Of its memory; of a tensor that oneDNN keeps, which shows none, of the tensor itself."""
    return tensor.data_ptr() if tensor.layout == torch.strided else id(tensor)


def _of_tokens(sealed: Fingerprint, ids: Sequence[Sequence[int]]) -> str | None:
    if _digest(ids) == sealed.token_digest:
        return None
    counts = [len(one) for one in ids]
    shorter = min(counts[-1], sealed.token_counts[-1])
    same_up_to_there = [min(n, shorter) for n in counts] == [min(n, shorter) for n in sealed.token_counts]
    if counts[-1] != sealed.token_counts[-1] and same_up_to_there:
        return f"{_ALIKE}it reads {counts[-1]} tokens of a long text where it read {sealed.token_counts[-1]}"
    return f"{_ALIKE}the tokenizer is another one, it makes other tokens of the probes"


def _of_base(sealed: Fingerprint, observed: Observed) -> str | None:
    if observed.base is None:
        return None
    gap = _gap(sealed.base, _projected(observed.base))
    return None if gap <= VECTOR_TOLERANCE else f"{_ALIKE}the base under it is another one (a pooled value is off by {gap:.3g})"


def _of_adapter(sealed: Fingerprint, observed: Observed) -> str | None:
    pooled = _projected(observed.pooled)
    gap = _gap(sealed.pooled, pooled)
    if gap <= VECTOR_TOLERANCE:
        return None
    if _gap(sealed.base, pooled) <= VECTOR_TOLERANCE:
        return f"{_ALIKE}its LoRA does nothing, it answers as the bare base (no-op)"
    return f"{_ALIKE}its LoRA is another one (a pooled value is off by {gap:.3g})"


def _of_head(sealed: Fingerprint, observed: Observed, manifest: Manifest) -> str | None:
    gap = _gap(sealed.scores, observed.logits)
    if not gap <= LOGIT_TOLERANCE:
        empty = " and says the same to every text" if bool((np.ptp(observed.logits, axis=0) == 0).all()) else ""
        return f"{_ALIKE}its head is another one{empty} (a logit is off by {gap:.3g})"
    for row, before, now in zip(sealed.scores, sealed.labels, observed.answers, strict=True):
        if before != now and margin(manifest, row) > 2 * LOGIT_TOLERANCE:  # an answer may differ where logits tie
            return f"{_ALIKE}it says {now!r} to a probe where {before!r} was sealed"
    return None


def _gap(sealed: Sequence[Sequence[float]], found: NDArray[np.float32]) -> float:
    """Largest difference; infinite where the shapes differ or a value is no number."""
    wanted = np.asarray(sealed, dtype=np.float64)
    if wanted.shape != found.shape:
        return float("inf")
    gap = float(np.abs(wanted - found).max())
    return gap if np.isfinite(gap) else float("inf")


def _digest(ids: Sequence[Sequence[int]]) -> str:
    return "sha256:" + hashlib.sha256(repr([[int(one) for one in row] for row in ids]).encode()).hexdigest()


def _plain(values: NDArray[np.float32]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(one) for one in row) for row in values)


def _projected(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """[probes, hidden] -> [probes, PROJECTED], by fixed random signs that keep the scale of a value."""
    return np.asarray(vectors @ _signs(vectors.shape[1]), dtype=np.float32)


@functools.cache
def _signs(hidden: int) -> NDArray[np.float32]:
    bits = np.unpackbits(np.frombuffer(hashlib.shake_256(b"holdfast fingerprint").digest(hidden), dtype=np.uint8))
    return np.asarray((bits.reshape(hidden, PROJECTED) * 2.0 - 1.0) / np.sqrt(hidden), dtype=np.float32)
