"""How many replicas Ray keeps where it may choose: by how busy they are, which its handles do not see (decision 0018).

Imported where the application is deployed and by Ray's controller. An alpha interface of Ray 2.60; that it scales out and in is shown by
`tests/integration/serving/test_fleet.py`.
"""

from __future__ import annotations

from typing import Any

BUSY = "busy"
"""What a replica calls the micro-batches in it over those that it answers at a time; above 1 some wait."""
WANTED_BUSY = 0.8


def by_busyness(context: Any) -> tuple[float, dict[str, Any]]:
    """So many replicas that each is busy for the wanted share; as many as there are while none has told anything.

    ``context``: `ray.serve.config.AutoscalingContext`; Ray averages what was told over its look-back period and applies bounds and delays.
    """
    told = (context.aggregated_metrics or {}).get(BUSY, {})
    if not told:
        return context.target_num_replicas, {}
    return sum(told.values()) / len(told) * context.current_num_replicas / WANTED_BUSY, {}
