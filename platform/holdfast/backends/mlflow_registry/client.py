"""The door to MLflow's client: bounded calls, one error, no telemetry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from holdfast.errors import PartUnavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient

BOUNDS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "8",  # whole seconds; its SQLite store answered within 5.4 s under eight writing processes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default of 7 with doubling pauses takes minutes; the loop asks again anyway
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "DO_NOT_TRACK": "true",
}


def open_client(tracking_uri: str) -> MlflowClient:
    """A client of one tracking server, which is its registry too. Makes no call. Importing MLflow takes about two seconds."""
    for name, value in BOUNDS.items():
        os.environ.setdefault(name, value)  # noqa: TID251 - MLflow takes its time limits from nowhere else
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


@contextmanager
def answering(doing: str) -> Iterator[None]:
    """Whatever goes wrong between us and the server becomes PartUnavailable: a mirror that is away stops nothing."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException, OSError) as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise PartUnavailable(part="MLflow", reason=f"{doing}: {first[0][:300]}") from error


def missing(error: Exception) -> bool:
    """Whether the server said that the named thing does not exist."""
    return getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
