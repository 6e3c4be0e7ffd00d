"""A single-label, a multi-label and an extraction adapter on one base, trained, judged by their fingerprints and asked over HTTP."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from holdfast.backends.adapter_store import FolderAdapterStore
from holdfast.backends.lora import LocalTrainer
from holdfast.domain.adapters import adapter_digest
from holdfast.domain.answers import label_counts, labels_in
from holdfast.domain.datasets import Example
from holdfast.domain.ids import AdapterDigest, SnapshotDigest, TaskName
from holdfast.domain.records import to_plain
from holdfast.domain.retraining import TrainingPlan
from holdfast.domain.splits import first_snapshot
from holdfast.domain.tasks import Kind, LoraSpec
from holdfast.settings import MINILM
from holdfast.testing.several import orders, topics

from .stack import KEY, Stack, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
ROWS = 240


def examples(kind: Kind) -> list[Example]:
    if kind == "extraction":
        return orders(1, ROWS)
    found = topics(1, ROWS)
    return found if kind == "multi-label" else [Example(text=e.text, label=(*labels_in(e.label), "none")[0]) for e in found]


def train(folder: Path, kind: Kind) -> AdapterDigest:
    """A head on the real base, taken into the adapter store that replicas read."""
    rows = first_snapshot(examples(kind), seed=1).rows
    path = folder / f"{kind}.parquet"
    pq.write_table(pa.Table.from_pylist([to_plain(row) for row in rows]), path)
    trainer = LocalTrainer(
        folder / "work", snapshots_path=lambda digest: path, champion_folder=lambda digest: folder,
        bases={"minilm": (MINILM.path, MINILM.sha256)}, cache_folder=folder / "cache",
    )  # fmt: skip
    labels = tuple(sorted(label_counts(row.label for row in rows if row.split == "train")))
    trainer.start(
        TrainingPlan(
            key=kind, task=TaskName(kind), base="minilm", base_digest=f"sha256:{MINILM.sha256}", labels=labels, max_tokens=64,
            rungs=("head",), lora=LoraSpec(), seed=1, snapshot_digest=SnapshotDigest(kind), champion_digest=None, kind=kind,
        )
    )  # fmt: skip
    manifest = FolderAdapterStore(folder / "adapters").add(Path(trainer.result(kind).rungs[0].folder))
    assert manifest.kind == kind
    return adapter_digest(manifest)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("home")
    digests = {kind: train(home, kind) for kind in ("classification", "multi-label", "extraction")}
    with Stack(home, application="holdfast.serving.app:build", deadline_s=60.0) as stack:
        for task, digest in digests.items():  # before anything runs: a replica is ready when it has tried to load each of them
            stack.assign(task, digest)
        stack.start_ray()
        stack.start_gateway()
        for task in digests:
            wait_for(lambda task=task: stack.predict(task, "ready?")[0] == 200, f"{task} is answered", 300)  # type: ignore[misc]
        yield stack


def ask(stack: Stack, task: str, texts: list[str]) -> list[dict[str, Any]]:
    body = json.dumps({"items": [{"text": text} for text in texts]}).encode()
    request = urllib.request.Request(f"{stack.url}/v1/tasks/{task}/predict", data=body, headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())["answers"]
    return found


def test_each_kind_is_answered_in_its_own_form_while_all_are_asked_at_once(stack: Stack) -> None:
    texts = {
        "classification": [e.text for e in topics(2, 40)],
        "multi-label": [e.text for e in topics(2, 40)],
        "extraction": [e.text for e in orders(2, 40)],
    }
    with ThreadPoolExecutor(3) as pool:
        single, several, spans = pool.map(lambda task: ask(stack, task, texts[task]), texts)
    assert all(isinstance(answer["label"], str) for answer in single)
    assert any(len(answer["labels"]) > 1 for answer in several)
    assert all("label" not in answer and 0 < answer["confidence"] <= 1 for answer in [*several, *spans])
    assert all(sorted(answer["confidences"]) == answer["labels"] for answer in several)
    parts = [(answer, part) for answer in several for part in answer["confidences"].values()]
    parts += [(answer, span["confidence"]) for answer in spans for span in answer["spans"]]
    assert parts
    assert all(answer["confidence"] <= part <= 1 for answer, part in parts)
    for text, answer in zip(texts["extraction"], spans, strict=True):
        assert all(text[span["start"] : span["end"]] == span["text"] for span in answer["spans"])
        assert sum(len(words) for words in answer["fields"].values()) == len(answer["spans"])


def test_most_spans_and_sets_are_right_on_messages_that_were_not_trained_on(stack: Stack) -> None:
    sets, wanted = topics(3, 40), orders(3, 40)
    said = ask(stack, "multi-label", [e.text for e in sets])
    assert sum(answer["labels"] == list(labels_in(e.label)) for answer, e in zip(said, sets, strict=True)) > 30
    found = ask(stack, "extraction", [e.text for e in wanted])
    truth = [{(s["field"], s["start"], s["end"]) for s in json.loads(e.label)["spans"]} for e in wanted]
    ours = [{(s["field"], s["start"], s["end"]) for s in answer["spans"]} for answer in found]
    both, all_of = sum(len(a & b) for a, b in zip(ours, truth, strict=True)), sum(map(len, ours)) + sum(map(len, truth))
    assert 2 * both / all_of > 0.9


def test_captures_hold_the_canonical_answer_and_the_embedding(stack: Stack) -> None:
    assert stack.database is not None
    log = stack.database.log()
    wait_for(lambda: log.count(TaskName("extraction")) > 0, "captures are stored")
    capture = log.newest(TaskName("extraction"), 1)[0]
    assert capture.prediction.label.startswith('{"spans":[')
    assert capture.embedding.shape == (384,)
