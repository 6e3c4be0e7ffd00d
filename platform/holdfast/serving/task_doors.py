"""Holdfast's own protocol: predictions by task, and feedback by request id."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute

from holdfast.domain.captures import Feedback
from holdfast.domain.ids import CaptureId, TaskName
from holdfast.domain.redaction import redacted_label
from holdfast.errors import NotFound, StorageRefused
from holdfast.flows.record import check_label
from holdfast.serving.answers import answer_fields
from holdfast.serving.doors import Doorkeeper, Reply
from holdfast.serving.gateway_state import Answered, Call
from holdfast.serving.schemas import FeedbackItem, read_body, read_feedback


class TaskDoors:
    """The routes under ``/v1/tasks`` and ``/v1/feedback``."""

    def __init__(self, keeper: Doorkeeper) -> None:
        self._keeper = keeper

    def routes(self) -> list[HttpRoute]:
        """To be mounted."""
        return [
            HttpRoute("/v1/tasks/{task}/predict", self.predict, methods=["POST"]),
            HttpRoute("/v1/feedback", self.feedback, methods=["POST"]),
        ]

    async def predict(self, request: Request) -> Response:
        """POST /v1/tasks/{task}/predict. The task may name a version: see `domain.model_names`."""
        return await self._keeper.serve(request, self._predict)

    async def feedback(self, request: Request) -> Response:
        """POST /v1/feedback."""
        return await self._keeper.serve(request, self._feedback)

    async def _predict(self, request: Request, call: Call) -> Reply:
        items, several = read_body(await self._keeper.body(request))
        target = self._keeper.state.feed.target(str(request.path_params["task"]))
        if target.task is None:
            raise NotFound(kind="served task", name=target.name)
        answered = await self._keeper.answer(request, call, target, items)
        bodies = [_body(one) for one in answered]
        raw = to_json({"request_id": call.request_id, "answers": bodies} if several else bodies[0])
        return Reply(response=Response(raw, media_type="application/json"), target=target, answered=answered)

    async def _feedback(self, request: Request, call: Call) -> Reply:
        items = read_feedback(await self._keeper.body(request))
        state = self._keeper.state
        if state.labels is None:
            raise StorageRefused(place="feedback", reason="this gateway records nothing")
        for item in items:
            self._check(item)
        now = state.clock()
        values = await self._as_kept(items)
        for item, value in zip(items, values, strict=True):
            one = Feedback(
                capture_id=CaptureId(item.request_id), task=TaskName(item.task) if item.task else None, value=value,
                source=item.source or call.caller, given_at=now,
            )  # fmt: skip
            problem = state.labels.accept(one)
            if problem is not None:
                raise StorageRefused(place="the spool of labels", reason=problem)
        return Reply(response=JSONResponse({"accepted_count": len(items), "request_id": call.request_id}, status_code=202))

    async def _as_kept(self, items: Sequence[FeedbackItem]) -> list[str]:
        """The labels as they may be written. Names of labels stay. One without its task is masked for all tasks that mask anything."""
        contracts = self._keeper.state.feed.known.catalogue.contracts
        kinds = tuple(sorted({kind for contract in contracts.values() for kind in contract.capture.redact}))
        if not kinds:
            return [item.label for item in items]
        names = tuple(label for contract in contracts.values() for label in contract.labels)

        def masked(item: FeedbackItem) -> str:
            contract = contracts.get(TaskName(item.task or ""))
            return redacted_label(item.label, contract.capture.redact if contract else kinds, contract.labels if contract else names)

        return await asyncio.to_thread(lambda: [masked(item) for item in items])

    def _check(self, item: FeedbackItem) -> None:
        """What can be known at once: the task, and whether the label is one of its; whether spans fit their text shows later."""
        if item.task is None:
            return
        contract = self._keeper.state.feed.known.catalogue.contracts.get(item.task)
        if contract is None:
            raise NotFound(kind="task", name=item.task[:80])
        check_label(contract, item.label)


def _body(one: Answered) -> dict[str, object]:
    return {
        "request_id": one.asked.request_id,
        **answer_fields(one.label, one.confidence, one.parts),
        "adapter_digest": one.asked.choice.digest,
        "base_digest": one.base_digest,
        "generation": one.asked.choice.generation,
        "route": one.asked.choice.route,
        "truncated": one.truncated,
        "cached": one.cached,
        "latency_ms": one.latency_ms,
    }
