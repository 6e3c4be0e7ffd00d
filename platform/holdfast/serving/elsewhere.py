"""Which replica is asked: the less busy one of two taken at random, but none that the caller has reason to avoid.

Imported by Ray in the process that asks (the gateway); the deployment names it by its import path.
"""

from __future__ import annotations

import random
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica


class Elsewhere(RequestRouter):  # type: ignore[misc]  # Ray is untyped
    """Power of two choices (Mitzenmacher, 2001) over the replicas whose id is not among the keyword argument `avoid` of the call."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Two candidates, of which Ray takes the one with the shorter queue. Where all are to be avoided, any will do: it says why not."""
        avoid = _avoided(pending_request)
        others = [one for one in candidate_replicas if one.replica_id.unique_id not in avoid] or candidate_replicas
        return [random.sample(others, min(2, len(others)))] if others else []


def _avoided(pending_request: Any) -> tuple[str, ...]:
    return tuple(pending_request.kwargs.get("avoid", ())) if pending_request is not None else ()
