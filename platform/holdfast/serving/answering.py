"""From texts to answers: who answers each, the cache, the micro-batch, the capture. Every door of the data plane goes through here.

On this path there is no database, no MLflow and no lock that anyone holds for long.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from holdfast.domain.captures import Capture, Prediction, with_slices_of
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.domain.model_names import Catalogue, Target
from holdfast.domain.redaction import as_kept
from holdfast.domain.routing import Choice
from holdfast.errors import HoldfastError, TooManyTokens
from holdfast.serving.batching import Answer
from holdfast.serving.gateway_state import Answered, Asked, Call, GatewayState
from holdfast.serving.schemas import Item

log = logging.getLogger("holdfast.serving")
COPY_S = 10.0
"""A copy for a shadow that found no idle moment for so long is given up."""
NO_FLOW = "base"


def asked_of(call: Call, target: Target, items: Sequence[Item]) -> list[Asked]:
    """Each text with its id and who answers it. Texts of one request that have no id of their own are numbered."""
    found = []
    for index, item in enumerate(items):
        request_id = item.request_id or (call.request_id if len(items) == 1 else f"{call.request_id}.{index}")
        choice = target.choice(call.session or request_id)
        found.append(Asked(text=item.text, request_id=request_id, choice=choice, slices=item.slices))
    return found


class Answering:
    """The core of the gateway."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def answer(self, call: Call, target: Target, items: Sequence[Item], *, record: bool = True) -> list[Answered]:
        """The answers, in order; with ``record`` each is captured before it is given.

        Raises:
            Overloaded, DeadlinePassed, PartUnavailable, TooManyTokens.
        """
        asked = asked_of(call, target, items)
        catalogue = self._state.feed.known.catalogue
        hits = [self._state.cache.get((one.choice.digest, one.text)) for one in asked]
        missed = [(one.choice.digest, one.text) for one, hit in zip(asked, hits, strict=True) if hit is None]
        flow = target.task or NO_FLOW
        fresh = iter(await self._state.batcher.answer(missed, deadline_s=call.left_s(), flow=flow) if missed else ())
        answers = [(hit, True) if hit is not None else (next(fresh), False) for hit in hits]
        _refuse_overlong(target, catalogue, [answer for answer, _ in answers], several=len(items) > 1)
        latency_ms = call.elapsed_ms()
        found = []
        for one, (answer, cached) in zip(asked, answers, strict=True):
            self._state.cache.put((one.choice.digest, one.text), answer)
            found.append(self._answered(one, answer, catalogue, cached=cached, latency_ms=latency_ms))
        return await self._recorded(target, found) if record and target.task is not None else found

    async def copy_to_shadow(self, target: Target, answered: Sequence[Answered]) -> None:
        """Ask the challenger in shadow, at idle moments, and record what it says. Nobody waits for it and nobody gets it."""
        for one in answered:
            shadow = one.asked.choice.shadow
            if shadow is None:
                continue
            outcome = "dropped"
            try:
                answer = await self._state.batcher.answer_copy((shadow, one.asked.text), deadline_s=COPY_S)
                if answer is not None:
                    await self._record_copy(target, one, answer)
                    outcome = "answered"
            except HoldfastError as error:
                log.warning("a copy for %s failed: %s", shadow, error)
                outcome = "failed"
            self._state.metrics.shadows.labels(target.task, outcome).inc()

    async def _record_copy(self, target: Target, one: Answered, answer: Answer) -> None:
        choice = Choice(digest=one.asked.choice.shadow or one.asked.choice.digest, route="shadow", generation=one.asked.choice.generation)
        asked = replace(one.asked, choice=choice, request_id=f"{one.asked.request_id}~shadow")
        copy = self._answered(asked, answer, self._state.feed.known.catalogue, cached=False, latency_ms=0.0)
        await self._recorded(target, [copy])

    @staticmethod
    def _answered(asked: Asked, answer: Answer, catalogue: Catalogue, *, cached: bool, latency_ms: float) -> Answered:
        label, confidence, embedding, tokens, parts = answer
        return Answered(
            asked=asked, label=label, confidence=confidence, parts=parts, embedding=embedding, tokens=tokens, cached=cached,
            latency_ms=latency_ms, base_digest=catalogue.base_digest(asked.choice.digest), capture="none",
        )  # fmt: skip

    async def _recorded(self, target: Target, answered: Sequence[Answered]) -> list[Answered]:
        """With their captures in the spool, or not: then the disk did not take one, and its answer says so.

        The texts of a task that redacts are masked by a thread before that: patterns over 20,000 hostile characters take 0.1 s.
        """
        captures = [self._capture(target, one) for one in answered]
        contract = self._state.feed.known.catalogue.contracts.get(target.task or "")
        if contract is None:  # what it wants masked is not known
            return [self._counted(target, one, kept=False) for one in answered]
        captures = [with_slices_of(capture, contract.capture) for capture in captures]
        if contract.capture.redact:
            captures = await asyncio.to_thread(lambda: [as_kept(capture, contract.capture) for capture in captures])
        dropped_count = sum(len(one.asked.slices) - len(capture.slices) for one, capture in zip(answered, captures, strict=True))
        if dropped_count:
            self._state.metrics.dropped_slices.labels(target.task).inc(dropped_count)
        buffer = self._state.buffer
        taken = [buffer is not None and buffer.accept(capture) for capture in captures]
        return [self._counted(target, one, kept=kept) for one, kept in zip(answered, taken, strict=True)]

    def _counted(self, target: Target, one: Answered, *, kept: bool) -> Answered:
        metrics = self._state.metrics
        metrics.rows.labels(target.task, one.asked.choice.route).inc()
        if one.cached:
            metrics.cached_rows.labels(target.task).inc()
        if one.truncated:
            metrics.truncated_rows.labels(target.task).inc()
        return replace(one, capture="stored" if kept else "refused")

    def _capture(self, target: Target, one: Answered) -> Capture:
        return Capture(
            capture_id=CaptureId(one.asked.request_id),
            task=TaskName(target.task or ""),
            text=one.asked.text,
            prediction=Prediction(label=one.label, confidence=one.confidence),
            adapter_digest=one.asked.choice.digest,
            generation=one.asked.choice.generation,
            route=one.asked.choice.route,
            captured_at=self._state.clock(),
            latency_ms=one.latency_ms,
            embedding=np.frombuffer(one.embedding, dtype="<f2"),
            slices=one.asked.slices,
        )


def _refuse_overlong(target: Target, catalogue: Catalogue, answers: Sequence[Answer], *, several: bool) -> None:
    contract = catalogue.contracts.get(target.task or "")
    if contract is None or contract.overlong == "truncate":
        return
    for index, (_, _, _, (count, read), _) in enumerate(answers):
        if count > read:
            raise TooManyTokens(place=f"items.{index}.text" if several else "text", count=count, limit=read, task=target.task)
