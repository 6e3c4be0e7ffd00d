"""The engine with many adapters: rows per CPU second in mixed batches, beside the bare base and beside PEFT, and memory per adapter.

    python tests/bench/bench_engine.py [--smoke]

MiniLM, the default recipe (rank 16 on all linears of the last three layers), batches of 32 texts of 6 to 24 words, one thread.
The figure is the least CPU time of interleaved repeats. PEFT answers padded batches sorted by length, mixed by `adapter_names`.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from holdfast.backends.lora.base_model import BaseModel, use_threads
from holdfast.backends.lora.encoder import Packing, embed_tokens, pool, run_layers
from holdfast.backends.lora.engine import LoraEngine
from holdfast.backends.lora.files import FINGERPRINT_NAME, finish_adapter, write_json
from holdfast.backends.lora.head import Head
from holdfast.backends.lora.lora_format import LoraWeights, start_lora
from holdfast.backends.lora.scoring import Weights, write_weights
from holdfast.domain.ids import AdapterDigest, SnapshotDigest, TaskName
from holdfast.domain.retraining import TrainingPlan
from holdfast.domain.tasks import LoraSpec
from holdfast.ports import Question
from holdfast.settings import MINILM

LABEL_COUNT = 8
ROWS = 32
_TEXT = "my order has not arrived and I want the money back please tell me when it was sent because nobody answers"
WORDS = _TEXT.split()


def make_adapters(folder: Path, engine: LoraEngine, count: int) -> list[tuple[AdapterDigest, Path]]:
    base = engine.base("minilm")
    spec = LoraSpec()
    lora, config = start_lora(base, spec, 0)
    labels = tuple(f"label {i}" for i in range(LABEL_COUNT))
    plan = TrainingPlan(
        key="k", task=TaskName("t"), base="minilm", base_digest=base.digest, labels=labels, max_tokens=128, rungs=("lora",), lora=spec,
        seed=0, snapshot_digest=SnapshotDigest("s"), champion_digest=None,
    )  # fmt: skip
    made = []
    for i in range(count):
        moved = {name: tensor + 0.02 * torch.randn(tensor.shape) for name, tensor in lora.tensors.items()}
        head = Head(torch.randn(LABEL_COUNT, base.hidden), torch.zeros(LABEL_COUNT))
        here = folder / str(i)
        here.mkdir()
        digest = finish_adapter(here, write_weights(here, Weights("lora", head, LoraWeights(moved, lora.scale), config), plan))
        write_json(here / FINGERPRINT_NAME, engine.fingerprint(engine.read(here)))
        made.append((digest, here))
    return made


def bare(base: BaseModel, texts: Sequence[str]) -> None:
    """The base alone, by the same code: tokenise, run, pool."""
    ids = base.token_ids(texts, 128)
    packing = Packing.of([len(one) for one in ids])
    with torch.inference_mode():
        pool(run_layers(base, embed_tokens(base, ids, packing), packing, range(len(base.layers))), packing)


def peft_model(base: BaseModel, folders: Sequence[Path]) -> Any:
    from peft import PeftModel
    from transformers import AutoModel

    model = AutoModel.from_pretrained(base.module.config._name_or_path)
    model = PeftModel.from_pretrained(model, folders[0], adapter_name="0")
    for i, folder in enumerate(folders[1:], start=1):
        model.load_adapter(folder, adapter_name=str(i))
    return model.eval()


def peft_answers(model: Any, base: BaseModel, texts: Sequence[str], names: Sequence[str]) -> None:
    made = base.tokenizer(list(texts), truncation=True, max_length=128, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**made, adapter_names=list(names)).last_hidden_state
        mask = made["attention_mask"][..., None]
        (states * mask).sum(1) / mask.sum(1)


def least_cpu(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least CPU seconds of each, interleaved, after one warm-up."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(repeats + 1):
        for name, run in runs.items():
            began = time.process_time()
            run()
            if turn:
                best[name] = min(best[name], time.process_time() - began)
    return best


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true")
    smoke = parser.parse_args().smoke
    warnings.simplefilter("ignore", FutureWarning)
    use_threads(1)
    counts, repeats = ((1, 4), 3) if smoke else ((1, 8, 64), 20)
    torch.manual_seed(0)
    engine = LoraEngine({"minilm": (MINILM.path, MINILM.sha256)}, 1)
    base, chance = engine.base("minilm"), random.Random(0)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(6, 24))) for _ in range(ROWS)]
    with tempfile.TemporaryDirectory() as place:
        adapters = make_adapters(Path(place), engine, max(counts))
        began, before = time.process_time(), psutil.Process().memory_info().rss
        for digest, folder in adapters:
            engine.load(digest, folder)
        spent, grown = time.process_time() - began, psutil.Process().memory_info().rss - before
        tensors = engine.read(adapters[0][1]).byte_count
        print(f"load: {1000 * spent / len(adapters):.0f} ms CPU an adapter, fingerprint included; {tensors / 2**20:.2f} MiB of tensors,")
        print(f"resident memory grew by {grown / 2**20 / len(adapters):.2f} MiB an adapter over {len(adapters)}")
        began = time.process_time()
        peers = peft_model(base, [folder for _, folder in adapters])
        print(f"PEFT load_adapter: {1000 * (time.process_time() - began) / len(adapters):.0f} ms CPU an adapter")
        print("| adapters in the batch of 32 | engine, rows/CPU s | of the bare base | PEFT adapter_names, rows/CPU s | of the bare base |")
        print("|---|---|---|---|---|")
        for count in counts:
            asked = [Question(digest=adapters[i % count][0], text=text) for i, text in enumerate(texts)]
            names = [str(i % count) for i in range(ROWS)]
            found = least_cpu(
                {
                    "base": lambda: bare(base, texts),
                    "engine": lambda asked=asked: engine.answer(asked),  # type: ignore[misc]
                    "peft": lambda names=names: peft_answers(peers, base, texts, names),  # type: ignore[misc]
                },
                repeats,
            )
            rate = {name: ROWS / seconds for name, seconds in found.items()}
            kinds = min(count, ROWS)
            print(
                f"| {kinds} ({count} loaded of {len(adapters)}) | {rate['engine']:.0f} | {rate['engine'] / rate['base']:.2f}"
                f" | {rate['peft']:.0f} | {rate['peft'] / rate['base']:.2f} |"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
