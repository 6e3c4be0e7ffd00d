"""The MLflow model registry as a mirror of our versions: where people look. The database is the truth."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.backends.mlflow_registry.client import answering, missing, open_client
from holdfast.backends.mlflow_registry.runs import DIGEST_TAG, ensure_run, lineage_tags, verdict_tags
from holdfast.domain.adapters import AdapterVersion
from holdfast.domain.gates import Verdict
from holdfast.domain.ids import TaskName
from holdfast.ports import RunFacts

if TYPE_CHECKING:
    from mlflow import MlflowClient


class MlflowRegistry:
    """One registered model per task, one version per adapter, aliases `champion` and `challenger`.

    Every call either works within bounded time (8 s and one retry for each request) or raises PartUnavailable.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._lock = threading.Lock()
        self._opened: MlflowClient | None = None

    def record(self, facts: RunFacts, folder: Path) -> AdapterVersion:
        """Log the run and register the adapter; done already means done. The version with its run id and registry version.

        Raises:
            PartUnavailable: when MLflow does not answer. What was written stays, and the next call goes on from there.
        """
        client = self._client()
        with answering(f"recording {facts.version.digest[:19]}"), self._lock:
            run_id = ensure_run(client, facts, folder)
            number = self._find(client, facts.version)
            if number is None:
                self._create(client, facts, run_id)
                number = self._find(client, facts.version)
        return dataclasses.replace(facts.version, run_id=run_id, registry_version=number)

    def tag_verdict(self, version: AdapterVersion, verdict: Verdict) -> None:
        """Write the verdict on the version and on its run. Nothing happens for a version that is not registered yet."""
        client = self._client()
        with answering("tagging a verdict"):
            number = version.registry_version or self._find(client, version)
            if number is None:
                return
            for name, value in verdict_tags(verdict).items():
                client.set_model_version_tag(version.task, number, name, value)
                if version.run_id is not None:
                    client.set_tag(version.run_id, name, value)

    def aliases(self, task: TaskName) -> Mapping[str, str]:
        """Alias to registry version; empty when the task is not registered. Raises PartUnavailable."""
        client = self._client()
        with answering(f"reading the aliases of {task}"):
            try:
                model = client.get_registered_model(task)
            except Exception as error:
                if missing(error):
                    return {}
                raise
        return {str(alias): str(number) for alias, number in dict(model.aliases).items()}

    def set_alias(self, task: TaskName, alias: str, registry_version: str | None) -> None:
        """Point an alias; None removes it. Raises PartUnavailable, also when there is no such version."""
        client = self._client()
        with answering(f"setting alias {alias} of {task}"):
            if registry_version is not None:
                client.set_registered_model_alias(task, alias, registry_version)
                return
            try:
                client.delete_registered_model_alias(task, alias)
            except Exception as error:
                if not missing(error):
                    raise

    def _client(self) -> MlflowClient:
        if self._opened is None:
            self._opened = open_client(self._uri)
        return self._opened

    def _find(self, client: MlflowClient, version: AdapterVersion) -> str | None:
        """The registry version of this adapter, by its tag; the first, should a call that timed out have made a second one."""
        found = client.search_model_versions(f"name = '{version.task}' and tags.`{DIGEST_TAG}` = '{version.digest}'")
        return str(min(int(each.version) for each in found)) if found else None

    def _create(self, client: MlflowClient, facts: RunFacts, run_id: str) -> None:
        self._ensure_model(client, facts)
        source = f"{client.get_run(run_id).info.artifact_uri}/adapter"
        tags = lineage_tags(facts)
        if facts.verdict is not None and facts.verdict.candidate == facts.version.digest:
            tags |= verdict_tags(facts.verdict)
        client.create_model_version(
            facts.version.task, source, run_id=run_id, tags=tags, description=_about_version(facts), await_creation_for=None
        )

    def _ensure_model(self, client: MlflowClient, facts: RunFacts) -> None:
        task = facts.version.task
        try:
            client.get_registered_model(task)
        except Exception as error:
            if not missing(error):
                raise
            client.create_registered_model(task, tags={"holdfast.task": task}, description=_about_task(facts))


def _about_task(facts: RunFacts) -> str:
    contract = facts.contract
    words = contract.description or f"Classification into {len(contract.labels)} labels."
    return f"{words}\n\nKept by Holdfast: the aliases are mirrors, moving them here changes nothing and is put back."


def _about_version(facts: RunFacts) -> str:
    version, snapshot = facts.version, facts.snapshot
    kind = "LoRA adapter with head" if version.rung == "lora" else "head on the frozen embedding (adapter of rank 0)"
    return (
        f"Version {version.number} of task {version.task}: {kind} on base {version.base}.\n\n"
        f"Trained on {snapshot.train_count} rows in {facts.rung.seconds:.0f} s because: {facts.retraining.reason}. "
        f"{facts.rung.byte_count / 1e6:.2f} MB; the base model is not stored here."
    )
