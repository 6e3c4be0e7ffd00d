"""Which way of running a base is fastest here: measured once per machine, base and release of torch, and remembered.

A way is named after its linear layers and its steps between them: `eager` or `packed`, with `native` where the machine's own code
does the steps. All of them give the same answers to about 1e-6. The 8-bit way is never chosen here: it is not exact.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

import torch

from holdfast.backends.lora.base_model import BaseModel
from holdfast.backends.lora.files import read_json, write_bytes
from holdfast.backends.lora.linears import EagerLinears, Linears, PackedLinears, all_weights
from holdfast.backends.lora.native import SOURCE, fits, machine_name, open_kernel
from holdfast.backends.lora.serving_pass import NativeSteps, Rows, TorchSteps, Way, encode

WayName = Literal["eager", "packed", "eager+native", "packed+native"]
TEXTS = (
    "where is my order", "the card was charged twice", "how do I change my address", "please cancel the order I placed today",
    "I have waited two weeks for the refund", "my parcel arrived broken", "the application closes as soon as I open it", "hello",
)  # fmt: skip
REPEATS = 5
_log = logging.getLogger(__name__)


def choose_way(base: BaseModel, folder: Path | None, forced: str | None) -> Way:
    """The way that is forced, else the fastest of those that work here. Without a folder for code and memory of it: `eager`."""
    if forced is not None:
        return open_way(base, forced, folder) or _instead(base, forced)
    if folder is None:
        return _eager(base)
    file = folder / f"way-{_key(base)}.json"
    known = read_json(file)
    if isinstance(known, dict) and known.get("way") in get_args(WayName):
        return open_way(base, known["way"], folder) or _instead(base, known["way"])
    ways = {name: way for name in get_args(WayName) if (way := open_way(base, name, folder)) is not None}
    taken = measure(base, ways)
    best = min(taken, key=lambda name: taken[name])
    _log.info("answers of %s go the way %s; milliseconds per text: %s", base.name, best, taken)
    write_bytes(file, json.dumps({"way": best, "milliseconds": taken}, sort_keys=True).encode())
    return ways[best]


def open_way(base: BaseModel, name: str, folder: Path | None) -> Way | None:
    """The way of this name; None where it does not work here."""
    form, _, native = name.partition("+")
    makers: Mapping[str, Callable[[], Linears]] = {
        "packed": lambda: PackedLinears(all_weights(base)),
        "eager": lambda: EagerLinears(all_weights(base)),
    }
    if form == "packed" and not PackedLinears.works():
        return None
    kernel = open_kernel(folder) if native and folder is not None and fits(base.hidden, base.head_count) else None
    if native and kernel is None:
        return None
    return Way(name, makers[form](), TorchSteps() if kernel is None else NativeSteps(kernel))


def measure(base: BaseModel, ways: Mapping[str, Way]) -> dict[str, float]:
    """Milliseconds of CPU per text, the least of interleaved repeats: the mean of a text alone and of eight together."""
    ids = base.token_ids(TEXTS, 128)
    together = Rows([len(one) for one in ids])
    best = dict.fromkeys(ways, [float("inf")] * 2)
    with torch.inference_mode():
        for _ in range(REPEATS):
            for name, way in ways.items():
                alone = _cpu_seconds(lambda: encode(base, way, ids[:1], Rows([len(ids[0])])))  # noqa: B023 - called at once
                eight = _cpu_seconds(lambda: encode(base, way, ids, together)) / len(ids)  # noqa: B023
                best[name] = [min(best[name][0], alone), min(best[name][1], eight)]
    return {name: round(1000 * sum(two) / 2, 3) for name, two in best.items()}


def _cpu_seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def _eager(base: BaseModel) -> Way:
    return Way("eager", EagerLinears(all_weights(base)), TorchSteps())


def _instead(base: BaseModel, name: str) -> Way:
    _log.warning("the way %s does not work here (any more): answers of %s go the way eager, more slowly", name, base.name)
    return _eager(base)


def _key(base: BaseModel) -> str:
    facts = (base.digest, torch.__version__, machine_name(), torch.get_num_threads(), os.cpu_count())
    return hashlib.sha256(SOURCE.read_bytes() + json.dumps(facts).encode()).hexdigest()[:16]
