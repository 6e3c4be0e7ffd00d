"""One MLflow run for each trained rung: what went in, how it went, what came out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.backends.mlflow_registry.plots import confusion_figure, curve_figure, label_figure, label_sums
from holdfast.domain.adapters import MANIFEST_NAME, WEIGHT_FILES
from holdfast.domain.answers import row_score
from holdfast.domain.gates import Verdict
from holdfast.domain.tasks import Kind, Rung
from holdfast.ports import RunFacts

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

DIGEST_TAG = "holdfast.adapter_digest"
PUBLISHED = (MANIFEST_NAME, *WEIGHT_FILES, "fingerprint.json")
"""What of an adapter folder is shown. Never the reference window: it holds request texts. Never base weights: they are not in it."""


VALIDATED: Mapping[tuple[Kind, Rung], tuple[str, str]] = {
    ("multi-label", "head"): ("validation_f1", "mean F1"),
    ("multi-label", "lora"): ("validation_f1", "mean F1"),
    ("extraction", "head"): ("validation_right_tokens", "share of right tokens"),
    ("extraction", "lora"): ("validation_right_texts", "share of texts with every token right"),
}
"""What a curve's `validation_accuracy` is by kind and rung where it is not the accuracy: its name in MLflow, and in words."""


def ensure_run(client: MlflowClient, facts: RunFacts, folder: Path) -> str:
    """The id of the finished run of this adapter, written now unless it is there already.

    A run that was begun and not finished (we died, or the server did) is taken up and written again: every part of it is
    written by name, so that writing it twice changes nothing.
    """
    experiment = _experiment(client, facts.version.task)
    found = client.search_runs([experiment], f"tags.`{DIGEST_TAG}` = '{facts.version.digest}'", max_results=1)
    if found and found[0].info.status == "FINISHED":
        return str(found[0].info.run_id)
    run_id = str(found[0].info.run_id) if found else _begin(client, experiment, facts)
    fresh = not found or not found[0].data.metrics
    client.log_batch(run_id, metrics=_metrics(facts) if fresh else [], params=_params(facts), tags=_tags(facts))
    _log_dataset(client, run_id, facts)
    title = f"{facts.version.task}, version {facts.version.number} ({facts.version.rung})"
    if facts.contract.kind == "classification":
        client.log_figure(run_id, confusion_figure(facts.confusion, f"{title}: held-out rows"), "plots/confusion.png")
    else:  # answers hold pieces of texts and are never shown: only sums for each label are
        client.log_figure(run_id, label_figure(facts.confusion, f"{title}: held-out rows"), "plots/labels.png")
    if facts.rung.curve:
        figure = curve_figure(facts.rung.curve, facts.rung.best_step, title, quality=_validated(facts)[1])
        client.log_figure(run_id, figure, "plots/curve.png")
    for name in PUBLISHED:
        if (folder / name).is_file():
            client.log_artifact(run_id, str(folder / name), "adapter")
    client.set_terminated(run_id, "FINISHED")
    return run_id


def verdict_tags(verdict: Verdict) -> dict[str, str]:
    """A verdict as tags that read as sentences: one for the outcome, one for each criterion."""
    tags = {"holdfast.verdict": verdict.outcome, "holdfast.verdict_id": verdict.verdict_id, "holdfast.gate_reason": verdict.reason[:500]}
    for criterion in verdict.criteria:
        tags[f"holdfast.gate.{criterion.name}"] = f"{criterion.outcome}: {criterion.reason}"[:500]
    return tags


def _experiment(client: MlflowClient, task: str) -> str:
    from mlflow.exceptions import MlflowException

    name = f"holdfast/{task}"
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, tags={"holdfast.task": task, "mlflow.experimentKind": "custom_model_development"}))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # somebody else made it meanwhile
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _begin(client: MlflowClient, experiment: str, facts: RunFacts) -> str:
    started_ms = int(facts.version.created_at.timestamp() * 1000)
    name = f"v{facts.version.number}-{facts.version.rung}"
    run = client.create_run(experiment, start_time=started_ms, run_name=name, tags={DIGEST_TAG: facts.version.digest})
    return str(run.info.run_id)


def _params(facts: RunFacts) -> list[object]:
    from mlflow.entities import Param

    version, lora = facts.version, facts.contract.retraining.lora
    values: dict[str, object] = {
        "rung": version.rung,
        "base": version.base,
        "base_digest": version.lineage.base_digest,
        "max_tokens": version.max_tokens,
        "kind": facts.contract.kind,
        "label_count": len(version.labels),
        "seed": version.lineage.seed,
        "train_rows": facts.snapshot.train_count,
        "validation_rows": facts.snapshot.validation_count,
        "holdout_rows": facts.snapshot.holdout_past_count + facts.snapshot.holdout_recent_count,
        "best_step": facts.rung.best_step,
    }
    if version.rung == "lora":
        values |= {
            "rank": lora.rank, "alpha": lora.alpha, "last_layers": lora.last_layers, "learning_rate": lora.learning_rate,
            "epochs": lora.epoch_count, "batch_rows": lora.batch_rows,
        }  # fmt: skip
    else:
        values["rank"] = 0
    return [Param(name, str(value)) for name, value in values.items()]


def _metrics(facts: RunFacts) -> list[Metric]:
    """Curve by step, then the figures at the end; finite ones only."""
    at_ms = int(facts.version.created_at.timestamp() * 1000)
    rows: list[tuple[str, float, int]] = []
    for point in facts.rung.curve:
        rows += [
            ("train_loss", point.train_loss, point.step),
            ("validation_loss", point.validation_loss, point.step),
            (_validated(facts)[0], point.validation_accuracy, point.step),
        ]
    rows += [("train_seconds", facts.rung.seconds, 0), ("adapter_bytes", float(facts.rung.byte_count), 0)]
    right = sum(row.get(true, 0) for true, row in facts.confusion.items())
    count = sum(sum(row.values()) for row in facts.confusion.values())
    if count:
        lower, upper = _wilson(right, count)
        rows += [("holdout_accuracy", right / count, 0), ("holdout_accuracy_lower", lower, 0), ("holdout_accuracy_upper", upper, 0)]
        rows.append(("holdout_rows", float(count), 0))
    if facts.contract.kind != "classification":
        rows += [(name, value, 0) for name, value in _set_metrics(facts).items()]
    from mlflow.entities import Metric

    return [Metric(name, value, at_ms, step) for name, value, step in rows if math.isfinite(value)]


def _set_metrics(facts: RunFacts) -> dict[str, float]:
    """On the held-out rows: mean F1 of a row, as the gate judges, and micro-averaged precision, recall and F1 of labels or spans."""
    sums = label_sums(facts.confusion).values()
    both, said, true = (sum(one[i] for one in sums) for i in range(3))
    f1 = 2 * both / max(1, said + true)
    rows = [(row_score(answer, truth, "f1"), count) for truth, row in facts.confusion.items() for answer, count in row.items()]
    mean = sum(score * count for score, count in rows) / max(1, sum(count for _, count in rows))
    micro = {"holdout_precision": both / max(1, said), "holdout_recall": both / max(1, true), "holdout_micro_f1": f1}
    return {"holdout_f1": mean, **micro}


def _validated(facts: RunFacts) -> tuple[str, str]:
    return VALIDATED.get((facts.contract.kind, facts.version.rung), ("validation_accuracy", "accuracy"))


def _wilson(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927), for reading; the gate uses its own bounds."""
    share = right / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def _tags(facts: RunFacts) -> list[object]:
    from mlflow.entities import RunTag

    tags = lineage_tags(facts) | {"holdfast.retraining": facts.retraining.retraining_id, "holdfast.reason": facts.retraining.reason[:500]}
    if facts.verdict is not None and facts.verdict.candidate == facts.version.digest:
        tags |= verdict_tags(facts.verdict)
    return [RunTag(name, value) for name, value in tags.items()]


def lineage_tags(facts: RunFacts) -> dict[str, str]:
    """Where a version comes from: with these and the ledger it re-derives."""
    version = facts.version
    return {
        DIGEST_TAG: version.digest,
        "holdfast.task": version.task,
        "holdfast.version": str(version.number),
        "holdfast.rung": version.rung,
        "holdfast.base": version.base,
        "holdfast.base_digest": version.lineage.base_digest,
        "holdfast.snapshot_digest": version.lineage.snapshot_digest,
        "holdfast.parent": version.lineage.parent_digest or "none",
        "holdfast.code_revision": version.lineage.code_revision,
        "holdfast.seed": str(version.lineage.seed),
    } | ({"holdfast.forced_over": version.lineage.forced_over} if version.lineage.forced_over else {})


def _log_dataset(client: MlflowClient, run_id: str, facts: RunFacts) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    snapshot = facts.snapshot
    profile = {"rows": snapshot.row_count, "train": snapshot.train_count, "validation": snapshot.validation_count}
    profile |= {"holdout_past": snapshot.holdout_past_count, "holdout_recent": snapshot.holdout_recent_count}
    dataset = Dataset(
        name=f"{snapshot.task} snapshot",
        digest=snapshot.digest.removeprefix("sha256:")[:36],  # the longest digest MLflow stores; the whole one is a tag
        source_type="holdfast",
        source=json.dumps({"snapshot_digest": snapshot.digest}),
        schema=json.dumps({"text": "string", "label": "string"}),
        profile=json.dumps(profile),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
