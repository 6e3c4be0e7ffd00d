"""Embeddings over HTTP by FastAPI in the form of OpenAI's API: sentence-transformers or ONNX Runtime inside, one text at a time.

python embedding_server.py PORT FOLDER sentence-transformers|onnxruntime
python embedding_server.py offline FOLDER TEXTS.json      rows per CPU second of sentence-transformers by itself

FOLDER: of the model; for ONNX Runtime it also holds `peer.onnx`, the graph of bench_engine. sentence-transformers has an environment
of its own, embedders.txt.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

one = threading.Lock()


def sentence_transformers(folder: Path) -> Callable[[list[str]], Any]:
    """The library's own encode, one thread."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.max_seq_length = 128
    return lambda texts: model.encode(texts, batch_size=32 if len(texts) > 1 else 1, show_progress_bar=False)


def onnx_runtime(folder: Path) -> Callable[[list[str]], Any]:
    """The graph, and the tokenizer of transformers; one thread."""
    from tests.bench.engine_peers import OnnxPeer
    from transformers import AutoTokenizer

    peer, tokenizer = OnnxPeer(folder / "peer.onnx"), AutoTokenizer.from_pretrained(folder)
    return lambda texts: peer.pooled(tokenizer(texts, truncation=True, max_length=128)["input_ids"])


ENGINES = {"sentence-transformers": sentence_transformers, "onnxruntime": onnx_runtime}


def make_app(folder: Path, kind: str) -> Any:
    """The application."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    app, embed = FastAPI(), ENGINES[kind](folder)

    class Asked(BaseModel):
        model: str
        input: str

    def embeddings(asked: Asked) -> Any:
        with one:
            vector = embed([asked.input])[0]
        data = [{"object": "embedding", "index": 0, "embedding": vector.tolist()}]
        return {"object": "list", "model": asked.model, "data": data, "usage": {"prompt_tokens": 0, "total_tokens": 0}}

    embeddings.__annotations__ = {"asked": Asked, "return": Any}
    app.post("/embeddings")(embeddings)
    return app


def offline(folder: Path, texts: list[str], repeats: int = 3) -> float:
    """Rows per CPU second: the least time of so many repeats after one for warming. The library sorts by length itself."""
    embed, best = sentence_transformers(folder), float("inf")
    for _ in range(repeats + 1):
        began = time.process_time()
        embed(texts)
        best = min(best, time.process_time() - began)
    return len(texts) / best


if __name__ == "__main__":
    if sys.argv[1] == "offline":
        print(json.dumps(offline(Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text()))))
    else:
        import uvicorn

        uvicorn.run(make_app(Path(sys.argv[2]), sys.argv[3]), host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
