"""How fast one thread embeds, offline: useful FLOP/s of the engine's base and of its peers over the machine's GEMM roof, in one run."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tests.bench.bench_engine import ROWS, bare, least_cpu, roofs, useful_flop
from tests.bench.engine_peers import OnnxPeer, write_graph
from tests.bench.peer_servers import HERE, MODEL, Absent, Servers

from holdfast.backends.lora.engine import LoraEngine, ServingOptions
from holdfast.settings import MINILM


@dataclass
class Offline:
    """What was found."""

    about: str
    roof: dict[str, float]
    """GFLOP/s."""
    rates: dict[str, float]
    """Texts per CPU second."""
    flop: float
    """Useful, of a text."""

    def lines(self) -> list[str]:
        """A table. The share is of the best roof: whatever way of multiplying was fastest here."""
        best = max(self.roof.values())
        lines = ["## Embeddings offline: useful FLOP/s over the GEMM roof, one thread", ""]
        lines += [f"GEMM roof in this run: {', '.join(f'{name} {value:.1f} GFLOP/s' for name, value in self.roof.items())}", ""]
        lines += ["| engine | texts/CPU s | useful GFLOP/s | over the roof |", "|---|---|---|---|"]
        for name, rate in self.rates.items():
            lines.append(f"| {name} | {rate:.0f} | {rate * self.flop / 1e9:.1f} | {rate * self.flop / 1e9 / best:.2f} |")
        return [*lines, ""]


def offline(servers: Servers, texts: Sequence[str], repeats: int) -> Offline:
    """Least CPU time of interleaved repeats. Leaves the graph of the ONNX peer where its server looks for it."""
    code = servers.scratch / "home" / "cache" / "engine"  # where Holdfast will find it
    engine = LoraEngine({"minilm": (MINILM.path, MINILM.sha256)}, 1, serving=ServingOptions(code_folder=code))
    base = engine.base("minilm")
    servers.onnx_folder = servers.scratch / "onnx"
    shutil.copytree(MODEL, servers.onnx_folder, ignore=shutil.ignore_patterns("*.safetensors"))
    write_graph(base, servers.onnx_folder / "peer.onnx")
    peer, ids = OnnxPeer(servers.onnx_folder / "peer.onnx"), base.token_ids(texts, 128)
    order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
    eights = [order[at : at + 8] for at in range(0, len(order), 8)]
    runs: dict[str, Callable[[], object]] = {
        f"Holdfast's engine, batches of {ROWS} as they come": lambda: [
            bare(engine, texts[at : at + ROWS]) for at in range(0, len(texts), ROWS)
        ],
        "onnxruntime fp32, sorted, batches of 8": lambda: [
            peer.pooled([base.token_ids([texts[i]], 128)[0] for i in group]) for group in eights
        ],
    }
    rates = {name: len(texts) / seconds for name, seconds in least_cpu(runs, repeats).items()}
    try:
        rates["sentence-transformers encode, batches of 32, sorted by itself"] = _sentence_transformers(servers, texts)
    except (Absent, subprocess.CalledProcessError) as error:
        servers.absent["sentence-transformers, offline"] = str(error)[-200:]
    about = f"{len(texts)}, {np.mean([len(one) for one in ids]):.1f} tokens on average"
    return Offline(about, roofs(base), rates, useful_flop(base, [len(one) for one in ids]) / len(texts))


def _sentence_transformers(servers: Servers, texts: Sequence[str]) -> float:
    asked = servers.scratch / "texts.json"
    asked.write_text(json.dumps(list(texts)))
    command = [str(servers.python("embedders")), str(HERE / "embedding_server.py"), "offline", str(MODEL), str(asked)]
    done = subprocess.run(command, env=servers.env(), capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])
