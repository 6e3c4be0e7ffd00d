"""Label requests in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast.domain.ids import ReviewId, TaskName
from holdfast.domain.records import canonical
from holdfast.domain.review import LabelRequest
from holdfast.errors import Conflict, NotFound
from holdfast.testing.memory_repositories import Tables


@dataclass(slots=True)
class MemoryReviews:
    """Twin of ``SqlReviews``."""

    tables: Tables

    def put(self, request: LabelRequest) -> None:
        stored = self.tables.reviews.get(request.request_id)
        if (stored.version if stored else 0) != request.version:
            raise Conflict(problem=f"Review {request.request_id} was changed by somebody else.")
        other = self.open_of(request.task)
        if other is not None and other.request_id != request.request_id and request.state == "open":
            raise Conflict(problem=f"A review of task {request.task} is open already.")
        saved = replace(request, version=request.version + 1)
        canonical(saved)  # ValueError on what no database could hold
        self.tables.reviews[request.request_id] = saved

    def get(self, request_id: ReviewId) -> LabelRequest:
        if request_id not in self.tables.reviews:
            raise NotFound(kind="review", name=request_id)
        return self.tables.reviews[request_id]

    def open_of(self, task: TaskName) -> LabelRequest | None:
        return next((r for r in self.tables.reviews.values() if r.task == task and r.state == "open"), None)

    def of_task(self, task: TaskName, limit: int = 20) -> tuple[LabelRequest, ...]:
        mine = [r for r in self.tables.reviews.values() if r.task == task]
        return tuple(sorted(mine, key=lambda r: r.asked_at)[::-1][:limit])
