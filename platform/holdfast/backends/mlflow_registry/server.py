"""How the supervised MLflow server is started: one process on SQLite and a local folder, on loopback, with jobs and telemetry off."""

from __future__ import annotations

import sys
from pathlib import Path

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
"""Nothing of ours calls home."""


def server_command(home: Path, *, host: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Arguments and added environment of the MLflow server of an embedded home. Makes `mlflow/` in it.

    Uvicorn is started directly rather than by `mlflow server`: that command is a parent which waits for the real server, so that
    killing it leaves an orphan on the port. The variables with a leading underscore are those it sets for its child; a test
    compares them with the installed MLflow.
    """
    folder = home / "mlflow"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    hosts = sorted({f"{name}:{port}" for name in (host, "localhost", "127.0.0.1")})
    store = f"sqlite:///{folder / 'mlflow.db'}"
    arguments = [sys.executable, "-m", "uvicorn", "--host", host, "--port", str(port), "--workers", "1"]
    arguments += ["--log-level", "warning", "mlflow.server.fastapi_app:app"]
    return arguments, QUIET | {
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # the job runner is seven more processes and 1.6 GB, and a way in
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{host}" for host in hosts),
        "MLFLOW_SERVER_X_FRAME_OPTIONS": "DENY",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
