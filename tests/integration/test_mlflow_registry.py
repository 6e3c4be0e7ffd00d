"""The MLflow mirror against a real server: what people find there, what never gets there, and a server that hangs."""

from __future__ import annotations

import dataclasses
import socket
import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from holdfast.backends.mlflow_registry import MlflowRegistry, server_command
from holdfast.backends.mlflow_registry.client import BOUNDS
from holdfast.backends.mlflow_registry.plots import SHOWN_LABELS, confusion_figure, label_figure, label_sums
from holdfast.domain.answers import spans_value
from holdfast.domain.ids import TaskName
from holdfast.domain.retraining import CurvePoint, TrainedRung
from holdfast.domain.tasks import LoraSpec
from holdfast.errors import PartUnavailable
from holdfast.ports import RunFacts
from holdfast.testing.builders import TASK, a_contract, a_retraining, a_snapshot, a_verdict, a_version
from holdfast.testing.several import FIELDS, orders

pytestmark = pytest.mark.stack
POINT = CurvePoint(step=30, epoch=1.0, train_loss=0.4, validation_loss=0.5, validation_accuracy=0.9)
FILES = ("manifest.json", "head.safetensors", "adapter_model.safetensors", "adapter_config.json", "fingerprint.json")


def some_facts(task: str) -> RunFacts:
    version = a_version(task=TaskName(task), rung="lora")
    rung = TrainedRung(
        rung="lora", digest=version.digest, folder="", seconds=42.0, byte_count=version.byte_count, curve=(POINT,), best_step=30
    )
    return RunFacts(
        retraining=a_retraining(), contract=a_contract(task=task), snapshot=a_snapshot(), rung=rung, version=version,
        verdict=a_verdict(candidate=version.digest), confusion={"billing": {"billing": 9, "refund": 1}, "refund": {"refund": 10}},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*FILES, "reference.parquet", "model.safetensors"):
        (tmp_path / name).write_bytes(b"x" * 64)
    return tmp_path


def test_a_run_shows_parameters_curve_interval_data_set_plots_and_adapter_files_only(mlflow_server: str, folder: Path) -> None:
    facts = some_facts("shown")
    recorded = MlflowRegistry(mlflow_server).record(facts, folder)
    assert recorded.run_id is not None
    client = MlflowClient(mlflow_server)
    run = client.get_run(recorded.run_id)
    assert run.info.status == "FINISHED"
    assert {"rung": "lora", "base": "minilm", "rank": str(LoraSpec().rank)}.items() <= run.data.params.items()
    assert run.data.metrics["holdout_accuracy"] == pytest.approx(0.95)
    assert run.data.metrics["holdout_accuracy_lower"] < 0.95 < run.data.metrics["holdout_accuracy_upper"]
    assert [m.step for m in client.get_metric_history(recorded.run_id, "validation_accuracy")] == [30]
    assert run.inputs.dataset_inputs[0].dataset.digest in facts.snapshot.digest
    assert {f.path for f in client.list_artifacts(recorded.run_id, "adapter")} == {f"adapter/{name}" for name in FILES}
    assert {f.path for f in client.list_artifacts(recorded.run_id, "plots")} == {"plots/confusion.png", "plots/curve.png"}


def test_a_version_carries_its_lineage_and_its_verdict_as_tags(mlflow_server: str, folder: Path) -> None:
    facts = some_facts("tagged")
    registry = MlflowRegistry(mlflow_server)
    recorded = registry.record(facts, folder)
    assert recorded.registry_version is not None
    found = MlflowClient(mlflow_server).get_model_version("tagged", recorded.registry_version)
    assert found.tags["holdfast.adapter_digest"] == facts.version.digest
    assert found.tags["holdfast.snapshot_digest"] == facts.version.lineage.snapshot_digest
    assert found.tags["holdfast.gate.floor"].startswith("pass: ")
    assert "base model is not stored here" in found.description
    failed = dataclasses.replace(facts.verdict or a_verdict(), outcome="fail")
    registry.tag_verdict(recorded, failed)
    assert MlflowClient(mlflow_server).get_model_version("tagged", recorded.registry_version).tags["holdfast.verdict"] == "fail"


def test_a_run_that_was_begun_by_a_process_that_died_is_finished_and_not_doubled(mlflow_server: str, folder: Path) -> None:
    facts = some_facts("begun")
    client = MlflowClient(mlflow_server)
    experiment = client.create_experiment("holdfast/begun")
    begun = client.create_run(experiment, tags={"holdfast.adapter_digest": facts.version.digest})
    recorded = MlflowRegistry(mlflow_server).record(facts, folder)
    assert recorded.run_id == begun.info.run_id
    assert [run.info.status for run in client.search_runs([experiment])] == ["FINISHED"]


def test_a_server_that_accepts_and_never_answers_holds_nobody_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        registry = MlflowRegistry(f"http://127.0.0.1:{deaf.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(PartUnavailable, match="MLflow"):
            registry.aliases(TASK)
    bound_s = int(BOUNDS["MLFLOW_HTTP_REQUEST_TIMEOUT"]) * (1 + int(BOUNDS["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]))
    assert time.monotonic() - started < bound_s + 10


def test_the_server_is_started_with_the_names_that_the_installed_mlflow_reads(tmp_path: Path) -> None:
    _, env = server_command(tmp_path, host="127.0.0.1", port=8602)
    read = (Path(mlflow.__file__).parent / "server" / "constants.py").read_text()  # importing it starts half a server
    names = [name for name in env if name.startswith("_MLFLOW_SERVER_")]
    assert len(names) == 5
    assert all(f'"{name}"' in read for name in names)
    assert env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert "*" not in env["MLFLOW_SERVER_ALLOWED_HOSTS"]


def test_long_labels_that_begin_alike_are_told_apart() -> None:
    long = [f"a family of labels that begin alike, number {n}" for n in range(3)]
    ticks = confusion_figure({label: {label: 1} for label in long}, "t").axes[0].get_xticklabels()
    assert len({tick.get_text() for tick in ticks}) == 3


def test_of_many_labels_the_plot_shows_those_that_are_confused() -> None:
    confusion = {f"label-{n}": {f"label-{n}": 5} for n in range(SHOWN_LABELS + 20)}
    confusion["label-49"]["label-48"] = 3
    axes = confusion_figure(confusion, "many").axes[0]
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert len(shown) == SHOWN_LABELS
    assert {"label-48", "label-49"} <= set(shown)


def test_a_plot_of_nothing_is_still_a_plot(tmp_path: Path) -> None:
    confusion_figure({}, "nothing").savefig(tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 0


def test_a_run_of_spans_shows_sums_for_each_field_and_no_text(mlflow_server: str, folder: Path) -> None:
    right = [e.label for e in orders(1, 30)]
    confusion = {true: {(true if n % 3 else spans_value([])): 1} for n, true in enumerate(dict.fromkeys(right))}
    facts = some_facts("spans")
    facts = dataclasses.replace(facts, contract=dataclasses.replace(facts.contract, kind="extraction"), confusion=confusion)
    recorded = MlflowRegistry(mlflow_server).record(facts, folder)
    assert recorded.run_id is not None
    client = MlflowClient(mlflow_server)
    metrics = client.get_run(recorded.run_id).data.metrics
    assert metrics["holdout_f1"] == metrics["holdout_accuracy"] < 1.0  # a row is right as a whole here, or has nothing
    assert metrics["validation_right_texts"] == POINT.validation_accuracy
    assert "validation_accuracy" not in metrics
    assert metrics["holdout_precision"] == 1.0
    assert 0.5 < metrics["holdout_recall"] < 0.8
    assert {f.path for f in client.list_artifacts(recorded.run_id, "plots")} == {"plots/labels.png", "plots/curve.png"}
    assert set(label_sums(confusion)) == {"item", "amount", "city"}
    named = [tick.get_text() for tick in label_figure(confusion, "t").axes[0].get_yticklabels()]
    assert all(name.split(" (")[0] in FIELDS for name in named)
