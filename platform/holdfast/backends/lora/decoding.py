"""From the outputs of a head to an answer, for every kind: the one place that knows what a logit means.

A head of labels sees the pooled vector of a text: one label is the highest logit, a set is every label above zero. A head of
spans sees each token: tag 0 is `outside`, then comes a `begin` for each of F fields, then an `inside` for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from holdfast.backends.lora.base_model import BaseModel, Offsets
from holdfast.backends.lora.head import Head
from holdfast.domain.adapters import Manifest
from holdfast.domain.answers import Span, labels_value, spans_value
from holdfast.domain.captures import Prediction
from holdfast.ports import Answer

Decoded = tuple[str, float, tuple[float, ...]]
"""The canonical answer, its confidence, and the confidence of each of its labels or spans; all 0..1."""


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """What an adapter says to one text."""

    logits: NDArray[np.float32]
    """[1, outputs of the head]; of a head on tokens [tokens, outputs]."""
    pooled: NDArray[np.float32]
    """[1, hidden]."""
    tokens: tuple[int, int] = (0, 0)
    """Of the whole text and of what was read of it."""


def outputs_of(manifest: Manifest, head: Head, states: Sequence[Tensor], pooled: Tensor) -> list[Output]:
    """One output per row of one adapter, from the states of its tokens ([tokens, hidden] each) and its pooled vector ([rows, hidden])."""
    with torch.inference_mode():
        if manifest.kind == "extraction":
            tagged = head.logits(torch.cat(list(states)))  # [T, hidden] -> [T, outputs]
            logits = list(torch.split(tagged, [len(one) for one in states]))
        else:
            logits = list(head.logits(pooled)[:, None])  # [rows, hidden] -> rows times [1, outputs]
    vectors = pooled.numpy()
    return [Output(row.numpy(), vectors[i : i + 1]) for i, row in enumerate(logits)]


def answers_of(base: BaseModel, asked: Sequence[tuple[Manifest, str]], outputs: Sequence[Output]) -> list[Answer]:
    """One answer per output, whatever mixture of adapters of one base it comes from."""
    offsets = _offsets(base, asked)
    found = []
    for i, ((manifest, text), output) in enumerate(zip(asked, outputs, strict=True)):
        label, confidence, parts = _decoded(manifest, text, output.logits, offsets.get(i, ()))
        prediction = Prediction(label=label, confidence=min(1.0, confidence))
        embedding = output.pooled[0].astype(np.float16)
        found.append(Answer(prediction=prediction, embedding=embedding, tokens=output.tokens, parts=parts))
    return found


def sealed_row(output: Output) -> NDArray[np.float32]:
    """What a fingerprint keeps of an output: [outputs]. Of tokens the highest; their mean would be blind to how rows are cut apart."""
    row: NDArray[np.float32] = output.logits.max(0)
    return row


def margin(manifest: Manifest, row: Sequence[float]) -> float:
    """How far the logits of a fingerprint are from another answer; infinite where they cannot tell."""
    if manifest.kind == "multi-label":
        return min(abs(one) for one in row)
    if manifest.kind == "extraction":
        return 0.0  # the highest logits do not say how near another path was: the logits themselves are the proof
    first, *others = sorted(row, reverse=True)
    return first - others[0] if others else float("inf")


def _decoded(manifest: Manifest, text: str, logits: NDArray[np.float32], offsets: Offsets) -> Decoded:
    if manifest.kind == "multi-label":
        return _label_set(manifest.labels, logits[0])
    if manifest.kind == "extraction":
        return _spans(manifest.labels, text, logits, offsets)
    best = int(logits[0].argmax())
    return manifest.labels[best], float(1.0 / np.exp(logits[0] - logits[0, best]).sum()), ()


def _label_set(labels: Sequence[str], logits: NDArray[np.float32]) -> Decoded:
    """Every label above zero. Confidence: the probability that all decisions are right, were they independent; of a label its own."""
    doubt = np.logaddexp(0.0, -np.abs(logits.astype(np.float64)))  # -log of each decision's probability
    chosen = {label: float(np.exp(-doubt[i])) for i, label in enumerate(labels) if logits[i] > 0}
    return labels_value(chosen), float(np.exp(-doubt.sum())), tuple(chosen[label] for label in sorted(chosen))


def _spans(fields: Sequence[str], text: str, logits: NDArray[np.float32], offsets: Offsets) -> Decoded:
    """The spans of the best legal tags. Confidence: the least probability of a chosen tag, of all tokens or of those of a span."""
    real = [i for i, (start, end) in enumerate(offsets[: len(logits)]) if end > start]
    if not real:
        return spans_value(()), 1.0, ()
    rows = logits[real].astype(np.float64)  # [content tokens, tags]
    tags = best_tags(rows)
    top = rows.max(1, keepdims=True)
    chosen = np.exp(rows[np.arange(len(tags)), tags] - top[:, 0] - np.log(np.exp(rows - top).sum(1)))
    begins = np.flatnonzero((tags > 0) & (tags <= len(fields)))
    parts = [float(chosen[a:b][tags[a:b] > 0].min()) for a, b in pairwise([*begins.tolist(), len(tags)])]  # outsides end a span
    return spans_value(_cut(fields, text, tags, [offsets[i] for i in real])), float(chosen.min()), tuple(parts)


def best_tags(logits: NDArray[np.float64]) -> NDArray[np.int64]:
    """The tags [tokens] with the greatest sum of logits [tokens, 2F + 1] in which an inside follows its begin or itself (Viterbi).

    >>> best_tags(np.array([[0.0, 2.0, 3.0], [0.0, 1.0, 2.0]])).tolist()  # an inside cannot come first
    [1, 2]
    """
    count, tags = logits.shape
    fields = (tags - 1) // 2
    back = np.zeros((count, tags), dtype=np.int64)
    score = logits[0].copy()
    score[fields + 1 :] = -np.inf
    for at in range(1, count):
        before = int(score.argmax())
        stays = score[fields + 1 :] > score[1 : fields + 1]  # [fields]: an inside comes from an inside, not from the begin
        back[at] = before
        back[at, fields + 1 :] = np.arange(1, fields + 1) + fields * stays
        score = score[back[at]] + logits[at]
    path = [int(score.argmax())]
    for at in range(count - 1, 0, -1):
        path.append(int(back[at, path[-1]]))
    return np.array(path[::-1], dtype=np.int64)


def _cut(fields: Sequence[str], text: str, tags: NDArray[np.int64], offsets: Offsets) -> list[Span]:
    spans: list[Span] = []
    for tag, (start, end) in zip(tags.tolist(), offsets, strict=True):
        if tag > len(fields) and spans:  # an inside: legal tags put it right behind its begin
            spans[-1] = Span(field=spans[-1].field, start=spans[-1].start, end=end, text=text[spans[-1].start : end])
        elif tag > 0:
            spans.append(Span(field=fields[tag - 1], start=start, end=end, text=text[start:end]))
    return spans


def _offsets(base: BaseModel, asked: Sequence[tuple[Manifest, str]]) -> dict[int, Offsets]:
    by_limit: dict[int, list[int]] = {}
    for i, (manifest, _) in enumerate(asked):
        if manifest.kind == "extraction":
            by_limit.setdefault(manifest.max_tokens, []).append(i)
    found: dict[int, Offsets] = {}
    for limit, rows in by_limit.items():
        found |= dict(zip(rows, base.offsets([asked[i][1] for i in rows], limit), strict=True))
    return found
