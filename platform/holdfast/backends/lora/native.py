"""The machine's own code for what a pass does between two base GEMMs: `kernel.c`, compiled once, called without copies.

The compiled file lies in a cache folder under a name made of the source, the processor and the compiler. Where no compiler is,
torch does the same work, more slowly.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SOURCE = Path(__file__).with_name("kernel.c")
WIDTH = 16
"""Floats of a vector: hidden size and width of a head must be multiples of it."""
_FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fPIC", "-shared")
_POINTER, _LONG = ctypes.c_void_p, ctypes.c_long
_SIGNATURES = {
    "lora_add": [_POINTER] * 5 + [_LONG] * 4,
    "attend": [_POINTER] * 3 + [_LONG] * 3 + [_POINTER],
    "add_norm": [_POINTER] * 5 + [_LONG] * 2 + [ctypes.c_float],
    "mean_rows": [_POINTER] * 3 + [_LONG] * 2,
}
_log = logging.getLogger(__name__)
Ints = NDArray[np.int64]


class Kernel:
    """The compiled functions over torch's memory. All tensors are float32 and contiguous; no call allocates more than its result."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        for name, signature in _SIGNATURES.items():
            function = getattr(self._library, name)
            function.argtypes, function.restype = signature, None

    def add_lora(self, x: Tensor, y: Tensor, segments: Ints, addresses: tuple[Ints, Ints], parts: int) -> None:
        """In place ``y += x down up`` per segment: [n, 3] of start, stop, rank; addresses of down and up, [n] each, 0 for none."""
        downs, ups = addresses
        self._library.lora_add(
            x.data_ptr(), y.data_ptr(), segments.ctypes.data, downs.ctypes.data, ups.ctypes.data,
            len(segments), x.shape[1], y.shape[1] // parts, parts,
        )  # fmt: skip

    def attend(self, qkv: Tensor, ends: Ints, heads: int) -> Tensor:
        """Attention within each row: [T, 3 hidden] -> [T, hidden]; row i is ``ends[i] .. ends[i + 1]``."""
        hidden = qkv.shape[1] // 3
        longest = -(-int(np.diff(ends).max()) // WIDTH) * WIDTH
        out, scratch = torch.empty(len(qkv), hidden), torch.empty((hidden // heads + 4) * longest)
        self._library.attend(qkv.data_ptr(), out.data_ptr(), ends.ctypes.data, len(ends) - 1, hidden, heads, scratch.data_ptr())
        return out

    def add_norm(self, a: Tensor, b: Tensor, norm: tuple[Tensor, Tensor], epsilon: float) -> Tensor:
        """Layer norm of a + b: [T, hidden]."""
        out = torch.empty_like(a)
        weight, bias = norm
        self._library.add_norm(a.data_ptr(), b.data_ptr(), weight.data_ptr(), bias.data_ptr(), out.data_ptr(), len(a), a.shape[1], epsilon)
        return out

    def mean(self, x: Tensor, ends: Ints) -> Tensor:
        """Mean over the tokens of each row: [T, hidden] -> [n, hidden]."""
        out = torch.empty(len(ends) - 1, x.shape[1])
        self._library.mean_rows(x.data_ptr(), out.data_ptr(), ends.ctypes.data, len(ends) - 1, x.shape[1])
        return out


def fits(hidden: int, heads: int) -> bool:
    """Whether a base of this shape can be run."""
    return hidden % WIDTH == 0 and (hidden // heads) % WIDTH == 0


@lru_cache(maxsize=8)
def open_kernel(folder: Path) -> Kernel | None:
    """The kernel of this machine, compiled into ``folder`` unless it is there; None, and the reason in the log, where it cannot be."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        _log.warning("no C compiler is here: answers take torch's own way, more slowly")
        return None
    try:
        path = folder / f"kernel-{_name(compiler)}.so"
        if not path.exists():
            _compile(compiler, path)
        return Kernel(path)
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        said = getattr(error, "stderr", b"") or b""
        _log.warning("the kernel cannot be compiled, answers take torch's own way: %s %s", error, said.decode(errors="replace")[-500:])
        return None


def machine_name() -> str:
    """What of this machine decides which code is fast and runs: the processor, as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    told = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join([platform.machine(), platform.system(), *told]).encode()).hexdigest()[:12]


def _name(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=30).stdout
    return hashlib.sha256(b"\0".join([SOURCE.read_bytes(), machine_name().encode(), " ".join(_FLAGS).encode(), version])).hexdigest()[:16]


def _compile(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        made = Path(place) / path.name
        subprocess.run([compiler, *_FLAGS, "-o", str(made), str(SOURCE), "-lm"], check=True, capture_output=True, timeout=120)
        made.chmod(0o500)
        made.replace(path)
