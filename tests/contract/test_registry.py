"""Every AdapterRegistry keeps these promises: MLflow's, against a real server, and the twin's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.backends.mlflow_registry import MlflowRegistry
from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.gates import Verdict
from holdfast.domain.ids import TaskName
from holdfast.domain.retraining import CurvePoint, TrainedRung
from holdfast.errors import PartUnavailable
from holdfast.ports import AdapterRegistry, RunFacts
from holdfast.testing.builders import TASK, a_contract, a_digest, a_retraining, a_snapshot, a_verdict, a_version
from holdfast.testing.twins import MemoryRegistry

CURVE = tuple(
    CurvePoint(step=n * 10, epoch=n / 2, train_loss=2 / (n + 1), validation_loss=2.2 / (n + 1), validation_accuracy=0.5 + 0.1 * n)
    for n in range(4)
)


def facts_of(version: AdapterVersion, verdict: Verdict | None = None) -> RunFacts:
    """What a training of that version leaves to show."""
    rung = TrainedRung(
        rung=version.rung, digest=version.digest, folder="", seconds=42.0, byte_count=version.byte_count, curve=CURVE, best_step=30
    )
    return RunFacts(
        retraining=a_retraining(), contract=a_contract(task=version.task), snapshot=a_snapshot(), rung=rung, version=version,
        verdict=verdict, confusion={"billing": {"billing": 9, "refund": 1}, "refund": {"refund": 10}},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("manifest.json", "head.safetensors", "adapter_model.safetensors", "adapter_config.json", "fingerprint.json"):
        (tmp_path / name).write_bytes(b"x" * 64)
    (tmp_path / "reference.parquet").write_bytes(b"texts of requests")
    return tmp_path


@pytest.fixture(params=["twin", "mlflow"])
def registry(request: pytest.FixtureRequest) -> Iterator[AdapterRegistry]:
    if request.param == "twin":
        yield MemoryRegistry()
    else:
        yield MlflowRegistry(request.getfixturevalue("mlflow_server"))


@pytest.fixture
def task(request: pytest.FixtureRequest) -> TaskName:
    """One of its own for each test, as they share a server."""
    return TaskName("t-" + "".join(c if c.isalnum() else "-" for c in request.node.name)[:50].lower().strip("-"))


def test_recording_gives_a_run_and_a_registry_version(registry: AdapterRegistry, task: TaskName, folder: Path) -> None:
    version = a_version(task=task)
    recorded = registry.record(facts_of(version), folder)
    assert recorded.run_id
    assert recorded == dataclasses.replace(version, run_id=recorded.run_id, registry_version="1")


def test_recording_twice_is_recording_once(registry: AdapterRegistry, task: TaskName, folder: Path) -> None:
    facts = facts_of(a_version(task=task))
    assert registry.record(facts, folder) == registry.record(facts, folder)


def test_every_adapter_of_a_task_is_the_next_version(registry: AdapterRegistry, task: TaskName, folder: Path) -> None:
    numbers = [
        registry.record(facts_of(a_version(task=task, digest=a_digest(name), number=n)), folder).registry_version
        for n, name in enumerate(("first", "second"), start=1)
    ]
    assert numbers == ["1", "2"]


def test_an_alias_is_set_moved_and_removed(registry: AdapterRegistry, task: TaskName, folder: Path) -> None:
    for name in ("first", "second"):
        registry.record(facts_of(a_version(task=task, digest=a_digest(name))), folder)
    registry.set_alias(task, "champion", "1")
    registry.set_alias(task, "challenger", "2")
    assert registry.aliases(task) == {"champion": "1", "challenger": "2"}
    registry.set_alias(task, "champion", "2")
    registry.set_alias(task, "challenger", None)
    registry.set_alias(task, "challenger", None)
    assert registry.aliases(task) == {"champion": "2"}


def test_a_task_that_nobody_registered_has_no_alias_and_loses_none(registry: AdapterRegistry) -> None:
    registry.set_alias(TaskName("nobody"), "champion", None)
    assert registry.aliases(TaskName("nobody")) == {}


def test_a_verdict_can_be_tagged_again_and_again(registry: AdapterRegistry, task: TaskName, folder: Path) -> None:
    version = registry.record(facts_of(a_version(task=task)), folder)
    for _ in range(2):
        registry.tag_verdict(version, a_verdict(candidate=version.digest))


def test_a_registry_that_is_away_says_so(folder: Path) -> None:
    twin = MemoryRegistry()
    twin.down = True
    away: list[AdapterRegistry] = [twin, MlflowRegistry("http://127.0.0.1:9")]
    for registry in away:
        with pytest.raises(PartUnavailable):
            registry.record(facts_of(a_version()), folder)
        with pytest.raises(PartUnavailable):
            registry.aliases(TASK)
        with pytest.raises(PartUnavailable):
            registry.set_alias(TASK, "champion", "1")
