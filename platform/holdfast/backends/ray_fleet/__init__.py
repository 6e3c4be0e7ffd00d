"""Ray, for the data plane: the head, the way to the replicas of its Serve application, and the lines that micro-batches take.

Importing this imports no Ray: a process sets ``client_environment`` first, since Ray reads its environment at import.
"""

from holdfast.backends.ray_fleet.fleet import APP, RayFleet
from holdfast.backends.ray_fleet.head import (
    OBJECT_STORE_BYTES,
    client_environment,
    cluster_token,
    ensure_token,
    head_command,
    head_environment,
    token_path,
)
from holdfast.backends.ray_fleet.listener import Listener, WireQuestion

__all__ = [
    "APP",
    "OBJECT_STORE_BYTES",
    "Listener",
    "RayFleet",
    "WireQuestion",
    "client_environment",
    "cluster_token",
    "ensure_token",
    "head_command",
    "head_environment",
    "token_path",
]
