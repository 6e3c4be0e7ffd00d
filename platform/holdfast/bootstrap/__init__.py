"""The only place where ports meet backends: one function per kind of process, each building only what it needs.

The API and the worker never import torch; the gateway imports neither torch nor MLflow.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast import __version__
from holdfast.domain.ids import AdapterDigest, SnapshotDigest
from holdfast.ports import AdapterStore, CaptureLog, Clock, House, InferenceEngine, UnitOfWork
from holdfast.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

    from holdfast.backends.ray_fleet import Listener, RayFleet, WireQuestion
    from holdfast.backends.ray_training import RayTrainer


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayParts:
    """What the gateway works with."""

    unit_of_work: Callable[[], UnitOfWork]
    log: CaptureLog
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaParts:
    """What one replica works with."""

    unit_of_work: Callable[[], UnitOfWork]
    adapters: AdapterStore
    engine: InferenceEngine
    clock: Clock


def now() -> datetime:
    """The present instant, aware, in UTC."""
    return datetime.now(UTC)


def for_worker(settings: Settings) -> House:
    """Everything the loop needs; trainings run on Ray."""
    return _house(settings)


def for_messages(settings: Settings) -> Celery:
    """The Celery application of the worker: the other side of the doorbell. An embedded broker is emptied first.

    Whatever lies in it is older than this worker, perhaps half-written, and said again by the first sweep.
    """
    from holdfast.backends.celery_queue import message_app, purge_folder

    if settings.broker_url is None:
        purge_folder(settings.folder)
    return message_app(settings.folder, settings.broker_url)


def for_api(settings: Settings) -> House:
    """The same house: a person's request goes through the same flows as the loop's own."""
    return _house(settings)


def for_gateway(settings: Settings) -> GatewayParts:
    """Routing table and capture log."""
    from holdfast.backends.sql import SqlDatabase

    database = SqlDatabase(settings.database)
    return GatewayParts(unit_of_work=database.unit_of_work, log=database.log(), clock=now)


def fleet(settings: Settings) -> RayFleet:
    """The way from the gateway to the replicas; nothing is connected yet."""
    from holdfast.backends.ray_fleet import RayFleet

    return RayFleet(settings, "holdfast.serving.app:build")


def listener(settings: Settings, answer: Callable[[Sequence[WireQuestion]], Awaitable[Sequence[object]]], host: str) -> Listener:
    """The replica's end of that way; listens, at ``host``, when it is first asked where it is."""
    from holdfast.backends.ray_fleet import Listener, cluster_token

    return Listener(lambda: cluster_token(settings), answer, host)


def for_replica(settings: Settings) -> ReplicaParts:
    """Engine and adapter store."""
    from holdfast.backends.adapter_store import FolderAdapterStore
    from holdfast.backends.lora import LoraEngine, ServingOptions
    from holdfast.backends.sql import SqlDatabase

    database, serving = SqlDatabase(settings.database), settings.serving
    options = ServingOptions(
        code_folder=settings.folder / "cache" / "engine", way=serving.engine_way,
        bank_bytes=serving.bank_mib << 20, host_bytes=serving.host_mib << 20, int8_loss=serving.int8_loss,
    )  # fmt: skip
    return ReplicaParts(
        unit_of_work=database.unit_of_work,
        adapters=FolderAdapterStore(settings.folder / "adapters"),
        engine=LoraEngine(base_paths(settings), threads=passes(settings), serving=options),
        clock=now,
    )


def passes(settings: Settings) -> int:
    """Passes that a replica on this machine runs side by side."""
    return settings.serving.passes(len(os.sched_getaffinity(0)))


def base_paths(settings: Settings) -> dict[str, tuple[str, str]]:
    """Base name to its path and the pinned SHA-256 of its weights."""
    return {name: (pin.path, pin.sha256) for name, pin in settings.bases.items()}


def base_digests(settings: Settings) -> dict[str, str]:
    """Base name to the pinned digest of its weights, in the form records use."""
    return {name: f"sha256:{pin.sha256}" for name, pin in settings.bases.items()}


def migrate(settings: Settings) -> None:
    """Bring the database to the newest schema. Safe to call from several processes at once."""
    from holdfast.backends.sql import SqlDatabase

    database = SqlDatabase(settings.database)
    try:
        database.migrate()
    finally:
        database.dispose()


def _house(settings: Settings) -> House:
    from holdfast.backends.adapter_store import FolderAdapterStore
    from holdfast.backends.celery_queue import CeleryDoorbell
    from holdfast.backends.evidently_reports import EvidentlyReporter
    from holdfast.backends.mlflow_registry import MlflowRegistry
    from holdfast.backends.snapshot_store import ParquetSnapshotStore
    from holdfast.backends.sql import SqlDatabase

    folder = settings.folder
    database = SqlDatabase(settings.database)
    snapshots = ParquetSnapshotStore(folder / "snapshots")
    adapters = FolderAdapterStore(folder / "adapters")
    return House(
        unit_of_work=database.unit_of_work,
        log=database.log(),
        snapshots=snapshots,
        adapters=adapters,
        trainer=_trainer(settings, snapshots.path, adapters.folder),
        registry=MlflowRegistry(settings.local(settings.ports.mlflow)),
        reporter=EvidentlyReporter(folder),
        doorbell=CeleryDoorbell(folder, settings.broker_url),
        clock=now,
        base_digests=base_digests(settings),
        code_revision=f"holdfast {__version__}",
        fleet_run_length_events=1e6 / settings.monitoring.fleet_false_alarms_per_million_events,
    )


def _trainer(
    settings: Settings, snapshot_path: Callable[[SnapshotDigest], Path], adapter_folder: Callable[[AdapterDigest], Path]
) -> RayTrainer:
    from holdfast.backends.ray_fleet import token_path
    from holdfast.backends.ray_training import JobsApi, RayTrainer

    return RayTrainer(
        jobs=JobsApi(f"http://127.0.0.1:{settings.ports.ray_dashboard}", token_path(settings)),
        work_folder=settings.folder / "work",
        cache_folder=settings.folder / "cache",
        snapshot_path=snapshot_path,
        adapter_folder=adapter_folder,
        base_paths={name: pin.path for name, pin in settings.bases.items()},
        threads=settings.train_threads,
    )
