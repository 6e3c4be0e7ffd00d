"""The engine with up to 1,024 adapters on one base, beside PEFT, merged copies, ONNX Runtime and transformers; and the machine's roof.

    python tests/bench/bench_engine.py [--smoke] [--texts FILE.csv] [--counts 1,32,256,1024]

MiniLM, rank 16 on all linears of all six layers, a head of 8 labels, batches of 32 texts, one thread. ``--texts`` takes
texts from the column `text` of a CSV file (Banking77's test file gives the lengths that the figures are about); else they are
made up, 6 to 24 words. Every figure is the least CPU time of interleaved repeats, so that other work on the machine weighs little.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from holdfast.backends.lora.base_model import BaseModel, use_threads
from holdfast.backends.lora.engine import LoraEngine, ServingOptions
from holdfast.backends.lora.files import FINGERPRINT_NAME, finish_adapter, write_json
from holdfast.backends.lora.head import Head
from holdfast.backends.lora.linears import PackedLinears, all_weights
from holdfast.backends.lora.lora_format import LoraWeights, start_lora
from holdfast.backends.lora.prefix_cache import by_length
from holdfast.backends.lora.scoring import Weights, write_weights
from holdfast.backends.lora.serving_pass import Rows as PassRows
from holdfast.backends.lora.serving_pass import cut, encode, run_pass
from holdfast.domain.ids import AdapterDigest, SnapshotDigest, TaskName
from holdfast.domain.retraining import TrainingPlan
from holdfast.domain.tasks import LoraSpec
from holdfast.ports import Question
from holdfast.settings import MINILM

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.engine_peers import OnnxPeer, Peers, write_graph

LABEL_COUNT, ROWS = 8, 32
WORDS = "my order has not arrived and I want the money back please tell me when it was sent because nobody answers".split()  # noqa: SIM905
Made = tuple[AdapterDigest, Path]


def make_adapters(folder: Path, engine: LoraEngine, count: int) -> list[Made]:
    """Finished adapters with random weights; the fingerprint is made by the engine itself."""
    base, spec = engine.base("minilm"), LoraSpec()
    lora, config = start_lora(base, spec, 0)
    plan = TrainingPlan(
        key="k", task=TaskName("t"), base="minilm", base_digest=base.digest, labels=tuple(f"label {i}" for i in range(LABEL_COUNT)),
        max_tokens=128, rungs=("lora",), lora=spec, seed=0, snapshot_digest=SnapshotDigest("s"), champion_digest=None,
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


def useful_flop(base: BaseModel, lengths: Sequence[int]) -> float:
    """What the encoder has to compute: 2 per weight and token, and attention (scores and mixture) over the real tokens."""
    weights = sum(weight.numel() for weight, _ in all_weights(base).values())
    return float(sum(2 * weights * n + 4 * len(base.layers) * base.hidden * n * n for n in lengths))


def roofs(base: BaseModel) -> dict[str, float]:
    """GFLOP/s of one thread: a large square product, and the base's widest layer as torch and as oneDNN run it."""
    square, x = torch.randn(2048, 2048), torch.randn(256, base.hidden)
    weight, bias = base.layers[0].up.detach(), base.layers[0].up_bias.detach()
    packed = PackedLinears({(0, "up"): (weight, bias)}) if PackedLinears.works() else None
    with torch.inference_mode():
        runs: dict[str, Callable[[], object]] = {
            "2048 x 2048 x 2048, torch": lambda: square @ square,
            "256 x 384 x 1536, torch": lambda: torch.nn.functional.linear(x, weight, bias),
        }
        if packed is not None:
            runs["256 x 384 x 1536, oneDNN packed"] = lambda: packed.apply((0, "up"), x)
        found = least_cpu(runs, 12)
    flop = {name: 2 * 2048**3 if name.startswith("2048") else 2 * 256 * weight.numel() for name in found}
    return {name: flop[name] / seconds / 1e9 for name, seconds in found.items()}


def bare(engine: LoraEngine, texts: Sequence[str], *, int8: bool = False) -> int:
    """The engine's base alone, by its own way or in 8 bits: tokenise, run, pool. Returns the number of texts."""
    base = engine.base("minilm")
    way, ids = engine._int8_way(base) if int8 else engine._way(base), base.token_ids(texts, 128)
    with torch.inference_mode():
        for rows in (ids,) if not way.steps.pads else [[ids[i] for i in batch] for batch in by_length([len(one) for one in ids])]:
            here = PassRows([len(one) for one in rows])
            way.steps.mean(encode(base, way, rows, here), here)
    return len(ids)


def load_times(engine: LoraEngine, adapters: Sequence[Made], text: str) -> dict[str, float]:
    """Milliseconds from the files on disk to the first answer, and of that the fingerprint: CPU and wall, median and 99th centile."""
    rows = []
    for digest, folder in adapters:
        wall, cpu = time.perf_counter(), time.process_time()
        engine.load(digest, folder)
        engine.answer([Question(digest=digest, text=text)])
        wall, cpu = 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)
        began = time.process_time()
        adapter = engine.read(folder)
        read = 1000 * (time.process_time() - began)
        began = time.process_time()
        engine.fingerprint(adapter)
        engine._outputs([(adapter, text)])
        rows.append((cpu, wall, cpu - 1000 * (time.process_time() - began), read))
    names = ("CPU", "wall", "CPU without fingerprint and answer", "CPU to read, check and pack")
    return {f"{name}, p{q}": float(np.percentile([row[k] for row in rows], q)) for k, name in enumerate(names) for q in (50, 99)}


def read_texts(path: Path | None, count: int) -> list[str]:
    """Texts of a file or made up; always the same."""
    chance = random.Random(0)
    if path is None:
        return [" ".join(chance.choices(WORDS, k=chance.randint(6, 24))) for _ in range(count)]
    with path.open(encoding="utf-8", newline="") as file:
        return chance.sample([row["text"] for row in csv.DictReader(file)], count)


def show(title: str, found: dict[str, float], unit: str) -> None:
    print(f"\n{title}")
    for name, value in found.items():
        print(f"  {name}: {value:.2f} {unit}")


def throughput(engine: LoraEngine, adapters: Sequence[Made], peers: Peers, texts: Sequence[str], repeats: int) -> None:
    """Rows per CPU second with so many adapters that the rows are drawn from."""
    count, chance = len(adapters), random.Random(1)
    batches = [texts[at : at + ROWS] for at in range(0, len(texts), ROWS)]
    numbers = [[chance.randrange(count) for _ in one] for one in batches]
    engine._favourite.__init__(engine._favourite._proved)  # type: ignore[misc]  # no adapter has a base of its own: that is measured apart

    def all_batches(run: Callable[[Sequence[str], Sequence[int]], object]) -> Callable[[], object]:
        return lambda: [run(one, n) for one, n in zip(batches, numbers, strict=True)]

    def ask(some: Sequence[str], n: Sequence[int]) -> object:
        return engine.answer([Question(digest=adapters[k][0], text=text) for k, text in zip(n, some, strict=True)])

    runs = {"base": all_batches(lambda some, _: bare(engine, some)), "engine": all_batches(ask)}
    if len(peers.load_ms) >= count:
        runs["PEFT adapter_names"] = all_batches(peers.mixed)
    if len(peers.merged) >= count:
        runs["merged copies"] = all_batches(peers.copies)
    found = least_cpu(runs, repeats)
    rate = {name: len(texts) / seconds for name, seconds in found.items()}
    rest = ", ".join(f"{name} {value:.0f} rows/CPU s ({value / rate['base']:.2f} of our base)" for name, value in rate.items())
    print(f"  {count} adapters: {rest}")


def roof_and_online(engine: LoraEngine, peers: Peers, texts: Sequence[str], folder: Path, repeats: int) -> None:
    """The base alone at the lengths of these texts, as batches and one by one, beside what others make of it."""
    base = engine.base("minilm")
    write_graph(base, folder / "peer.onnx")
    fp32, int8 = OnnxPeer(folder / "peer.onnx"), OnnxPeer(folder / "peer.onnx", int8=True)
    ids = base.token_ids(texts, 128)
    order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
    some = [order[at : at + 8] for at in range(0, len(order), 8)]

    def onnx(peer: OnnxPeer, groups: Sequence[Sequence[int]]) -> Callable[[], object]:
        return lambda: [peer.pooled([base.token_ids([texts[i]], 128)[0] for i in group]) for group in groups]

    single = [[i] for i in range(0, len(texts), 4)]
    found = least_cpu(
        {
            "ours, batches of 32 as they come": lambda: [bare(engine, texts[at : at + ROWS]) for at in range(0, len(texts), ROWS)],
            "ours in 8 bits, the same": lambda: [bare(engine, texts[at : at + ROWS], int8=True) for at in range(0, len(texts), ROWS)],
            "onnxruntime fp32, sorted, 8": onnx(fp32, some),
            "onnxruntime int8, sorted, 8": onnx(int8, some),
            "transformers, sorted, 8": lambda: [peers.plain([texts[i] for i in group]) for group in some],
            "one by one, ours": lambda: [bare(engine, [texts[i]]) for group in single for i in group],
            "one by one, ours in 8 bits": lambda: [bare(engine, [texts[i]], int8=True) for group in single for i in group],
            "one by one, onnxruntime fp32": onnx(fp32, single),
            "one by one, onnxruntime int8": onnx(int8, single),
            "one by one, transformers": lambda: [peers.plain([texts[i] for i in group]) for group in single],
        },
        repeats,
    )
    flop, few = useful_flop(base, [len(one) for one in ids]), useful_flop(base, [len(ids[group[0]]) for group in single])
    for name, seconds in found.items():
        alone = name.startswith("one by one")
        rows, work = (len(single), few) if alone else (len(texts), flop)
        print(f"  {name}: {rows / seconds:.0f} requests/CPU s, {work / seconds / 1e9:.1f} useful GFLOP/s")


def favourite(engine: LoraEngine, adapter: Made, texts: Sequence[str], repeats: int) -> None:
    """One adapter alone, with its LoRA apart and merged into a base of its own."""
    from holdfast.backends.lora.favourite import merged_way

    loaded = engine.read(adapter[1])
    base = loaded.base
    way = engine._way(base)
    merged, ids = merged_way(loaded, loaded.row, way), base.token_ids(texts, 128)
    passes = cut(way, range(len(ids)), [loaded] * len(ids), ids, 1)

    def go(one: Any, is_merged: bool) -> None:
        for rows in passes:
            run_pass(base, one, [loaded] * len(rows), [ids[i] for i in rows], is_merged)

    found = least_cpu({"apart": lambda: go(way, False), "merged": lambda: go(merged, True), "bare": lambda: bare(engine, texts)}, repeats)
    print(f"  apart {found['bare'] / found['apart']:.3f}, merged {found['bare'] / found['merged']:.3f} of the bare base")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--counts", default="1,32,256,1024")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    counts, repeats, rows, peft_count = [int(one) for one in asked.counts.split(",")], 5, 128, 32
    if asked.smoke:
        counts, repeats, rows, peft_count = [1, 4], 1, 32, 2
    torch.manual_seed(0)
    use_threads(1)
    texts = read_texts(asked.texts, rows)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        engine = LoraEngine({"minilm": (MINILM.path, MINILM.sha256)}, 1, serving=ServingOptions(code_folder=folder / "code"))
        base = engine.base("minilm")
        print(f"way: {engine._way(base).name}; tokens of a text: {np.mean([len(one) for one in base.token_ids(texts, 128)]):.1f}")
        show("Roof of one thread", roofs(base), "GFLOP/s")
        adapters = make_adapters(folder, engine, max(counts) + 16)
        peers = Peers(base, [path for _, path in adapters[:peft_count]])
        print("\nThroughput")
        most, memory = max(counts), dict[int, int]()
        fresh, loaded = adapters[most:], 0
        for count in counts:
            for digest, path in adapters[loaded:count]:
                engine.load(digest, path)
            loaded = count
            show(f"From files to the first answer, {count} resident", load_times(engine, fresh, texts[0]), "ms")
            for digest, _ in fresh:
                engine.unload(digest)
            throughput(engine, adapters[:count], peers, texts, repeats)
            memory[count] = psutil.Process().memory_info().rss
        grown = (memory[most] - memory[counts[0]]) / (most - counts[0])  # the slope: what a first level warms up is not an adapter's
        raw = sum(file.stat().st_size for file in adapters[0][1].glob("*.safetensors"))
        show("PEFT load_adapter, CPU", {"first": peers.load_ms[0], "second": peers.load_ms[1], "last": peers.load_ms[-1]}, "ms")
        own = engine.read(adapters[0][1]).byte_count
        sizes = {"in the bank": own / raw, "resident memory grew by": grown / raw}
        show(
            f"Memory of an adapter over its raw bytes ({raw})",
            {**sizes, "PEFT": peers.peft_bytes / raw, "merged copy": peers.merged_bytes / raw},
            "x",
        )
        print("\nThe base alone")
        roof_and_online(engine, peers, texts, folder, repeats)
        print("\nOne adapter alone")
        favourite(engine, adapters[0], texts, repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
