"""How Ray Serve runs the replicas: one set of options, for the gateway that deploys at home and for the file that `serve deploy` reads."""

from __future__ import annotations

import json
from typing import Any

from holdfast.settings import Serving, Settings

APP = "holdfast"
DEPLOYMENT = "Replica"
BUILD = "holdfast.serving.app:build"
ROUTER = "holdfast.serving.elsewhere:Elsewhere"
ONGOING = 8
"""Micro-batches that may wait at a replica; a gateway sends few at a time, so more would be a queue without end."""
TARGET_ONGOING = 2.0
"""Ray adds replicas above so many micro-batches per replica: one that is answered and one that waits."""
NOT_THE_REPLICAS = {"replica_count", "replica_count_max", "replicas_per_node", "replica_cpus", "gateway_count", "drain_s"}
"""Settings of the fleet, not of a replica: in the arguments they would start every replica anew when only their number changes."""


def deployment_options(serving: Serving) -> dict[str, Any]:
    """Options of the deployment, in the words of Ray Serve."""
    options: dict[str, Any] = {
        "max_ongoing_requests": ONGOING,
        "health_check_period_s": 2.0,
        "health_check_timeout_s": 20.0,
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": serving.drain_s,
        "ray_actor_options": {"num_cpus": serving.replica_cpus},
        "request_router_config": {"request_router_class": ROUTER},
    }
    if serving.replicas_per_node:
        options["max_replicas_per_node"] = serving.replicas_per_node
    if serving.replica_count_max <= serving.replica_count:
        return options | {"num_replicas": serving.replica_count}
    scaling = {
        "min_replicas": serving.replica_count, "max_replicas": serving.replica_count_max, "target_ongoing_requests": TARGET_ONGOING,
        "upscale_delay_s": 10.0, "downscale_delay_s": 300.0,
    }  # fmt: skip
    return options | {"autoscaling_config": scaling}


def serve_document(settings: Settings, *, build: str = BUILD) -> dict[str, Any]:
    """What `serve deploy` reads: the application, without an HTTP port of Ray's (the gateways are the way in) and without a secret.

    A replica reads the database's URL from `HOLDFAST_DATABASE_URL` in its own environment.
    """
    kept = settings.model_dump(mode="json", include={"home", "bases", "serving"})
    kept["home"] = str(settings.folder)
    kept["serving"] = {name: value for name, value in kept["serving"].items() if name not in NOT_THE_REPLICAS}
    return {
        "proxy_location": "Disabled",
        "applications": [
            {
                "name": APP,
                "route_prefix": None,
                "import_path": build,
                "args": {"settings": json.dumps(kept)},
                "deployments": [{"name": DEPLOYMENT, **deployment_options(settings.serving)}],
            }
        ],
    }
