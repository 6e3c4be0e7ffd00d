"""Composition for a backtest: the whole loop in one process, in a folder of its own, without the stack."""

from __future__ import annotations

from pathlib import Path

from holdfast import __version__
from holdfast.backends.backtest_page import write_comparison, write_page
from holdfast.backends.backtest_parts import NoDoorbell, NoRegistry, NoReporter
from holdfast.backends.contract_file import read_contract
from holdfast.backends.example_files import read_history
from holdfast.bootstrap import base_digests, base_paths
from holdfast.flows.backtest_stage import ReplayClock, Stage
from holdfast.ports import House
from holdfast.settings import Settings

__all__ = ["for_backtest", "read_contract", "read_history", "write_comparison", "write_page"]


def for_backtest(settings: Settings, folder: Path, *, cache: Path | None = None) -> Stage:
    """SQLite, stores and trainings in ``folder``; registry, reports and doorbell are left out, for they decide nothing.

    Args:
        cache: folder of pooled vectors that several stages share, so that a text is embedded once; absent: one in ``folder``.
    """
    from holdfast.backends.adapter_store import FolderAdapterStore
    from holdfast.backends.lora import LocalTrainer
    from holdfast.backends.snapshot_store import ParquetSnapshotStore
    from holdfast.backends.sql import SqlDatabase

    database = SqlDatabase(f"sqlite:///{folder / 'backtest.db'}")
    database.migrate()
    clock = ReplayClock()
    snapshots, adapters = ParquetSnapshotStore(folder / "snapshots"), FolderAdapterStore(folder / "adapters")
    trainer = LocalTrainer(
        folder / "work",
        snapshots_path=snapshots.path,
        champion_folder=adapters.folder,
        bases=base_paths(settings),
        cache_folder=cache or folder / "cache",
    )
    house = House(
        unit_of_work=database.unit_of_work,
        log=database.log(),
        snapshots=snapshots,
        adapters=adapters,
        trainer=trainer,
        registry=NoRegistry(),
        reporter=NoReporter(),
        doorbell=NoDoorbell(),
        clock=clock,
        base_digests=base_digests(settings),
        code_revision=f"holdfast {__version__}",
    )
    return Stage(house=house, engine=trainer.engine, clock=clock)
