"""Peers of the engine: PEFT and merged copies by transformers, and the same encoder in ONNX Runtime, fp32 and int8.

The graph is made from our own weights, node by node in the form that ONNX Runtime's own optimiser knows; the encoder alone, no adapter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from holdfast.backends.lora.base_model import BaseModel


class _Graph:
    """Nodes and weights of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def put(self, value: Tensor | np.ndarray[Any, Any] | np.float32) -> str:
        name = f"w{len(self.weights)}"
        plain = value.detach().numpy() if isinstance(value, Tensor) else value
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(plain), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def linear(self, x: str, weight: Tensor, bias: Tensor) -> str:
        return self.add("Add", self.add("MatMul", x, self.put(weight.T)), self.put(bias))


def write_graph(base: BaseModel, path: Path) -> None:
    """The encoder with mean pooling: ids [n, l], mask [n, l] (1.0 on tokens) -> pooled [n, hidden]."""
    g, hidden, width = _Graph(), base.hidden, base.hidden // base.head_count
    places = g.add("Slice", g.put(base.positions), g.put(np.array([0])), g.add("Shape", "ids", start=1, end=2))  # [l, hidden]
    x = g.add("Add", g.add("Gather", g.put(base.words), "ids"), places)
    x = _norm(g, x, base.first_norm, base.norm_epsilon)
    heads, flat = g.put(np.array([0, 0, base.head_count, width])), g.put(np.array([0, 0, hidden]))
    axes = g.put(np.array([1, 2]))
    bias = g.add("Mul", g.add("Sub", g.add("Unsqueeze", "mask", axes), g.put(np.float32(1))), g.put(np.float32(1e9)))  # [n, 1, 1, l]
    for layer in base.layers:
        q, k, v = (
            g.add("Reshape", g.linear(x, weight, one), heads)
            for weight, one in zip(layer.qkv.chunk(3), layer.qkv_bias.chunk(3), strict=True)
        )
        q, v = (g.add("Transpose", one, perm=[0, 2, 1, 3]) for one in (q, v))
        scores = g.add("Div", g.add("MatMul", q, g.add("Transpose", k, perm=[0, 2, 3, 1])), g.put(np.float32(math.sqrt(width))))
        mixed = g.add("MatMul", g.add("Softmax", g.add("Add", scores, bias), axis=-1), v)
        mixed = g.add("Reshape", g.add("Transpose", mixed, perm=[0, 2, 1, 3]), flat)
        x = _norm(g, g.add("Add", g.linear(mixed, layer.out, layer.out_bias), x), layer.norm, base.norm_epsilon)
        wide = g.add("Gelu", g.linear(x, layer.up, layer.up_bias))
        x = _norm(g, g.add("Add", g.linear(wide, layer.down, layer.down_bias), x), layer.last_norm, base.norm_epsilon)
    real = g.add("Unsqueeze", "mask", g.put(np.array([2])))
    total = g.add("ReduceSum", g.add("Mul", x, real), g.put(np.array([1])), keepdims=0)
    g.nodes.append(helper.make_node("Div", [total, g.add("ReduceSum", real, g.put(np.array([1])), keepdims=0)], ["pooled"]))
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "l"])
    mask = helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", "l"])
    pooled = helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["n", hidden])
    graph = helper.make_graph(g.nodes, "encoder", [ids, mask], [pooled], g.weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))


class OnnxPeer:
    """A session of one thread over a graph file."""

    def __init__(self, path: Path, *, int8: bool = False) -> None:
        if int8:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            small = path.with_suffix(".int8.onnx")
            quantize_dynamic(path, small, per_channel=True, weight_type=QuantType.QInt8)
            path = small
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def pooled(self, ids: Sequence[Sequence[int]]) -> Any:
        """[n, hidden] of rows padded to the longest."""
        longest = max(len(one) for one in ids)
        table = np.zeros((len(ids), longest), np.int64)
        mask = np.zeros((len(ids), longest), np.float32)
        for row, one in enumerate(ids):
            table[row, : len(one)], mask[row, : len(one)] = one, 1.0
        return self._session.run(None, {"ids": table, "mask": mask})[0]


def _norm(g: _Graph, x: str, norm: tuple[Tensor, Tensor], epsilon: float) -> str:
    return g.add("LayerNormalization", x, g.put(norm[0]), g.put(norm[1]), epsilon=epsilon)


class Peers:
    """PEFT with some adapters loaded, and as many merged copies of the encoder."""

    def __init__(self, base: BaseModel, folders: Sequence[Path]) -> None:
        from peft import PeftModel
        from transformers import AutoModel

        self.base, path = base, base.module.config._name_or_path
        self.load_ms: list[float] = []
        before = psutil.Process().memory_info().rss
        self.peft: Any = None
        for i, folder in enumerate(folders):
            began = time.process_time()
            if self.peft is None:
                self.peft = PeftModel.from_pretrained(AutoModel.from_pretrained(path), folder, adapter_name="0").eval()
            else:
                self.peft.load_adapter(folder, adapter_name=str(i))
            self.load_ms.append(1000 * (time.process_time() - began))
        self.peft_bytes = (psutil.Process().memory_info().rss - before) / len(folders)
        before = psutil.Process().memory_info().rss
        self.merged = [
            PeftModel.from_pretrained(AutoModel.from_pretrained(path), folder).merge_and_unload().eval() for folder in folders[:8]
        ]
        self.merged_bytes = (psutil.Process().memory_info().rss - before) / len(self.merged)

    def mixed(self, texts: Sequence[str], numbers: Sequence[int]) -> None:
        """A batch by `adapter_names`, padded to its longest."""
        self._pooled(self.peft, texts, adapter_names=[str(i) for i in numbers])

    def copies(self, texts: Sequence[str], numbers: Sequence[int]) -> None:
        """Each adapter's rows by its own merged model."""
        for number in set(numbers):
            self._pooled(self.merged[number], [text for text, n in zip(texts, numbers, strict=True) if n == number])

    def plain(self, texts: Sequence[str]) -> int:
        """The base alone by transformers, padded to its longest. Returns the number of texts."""
        self._pooled(self.base.module, texts)
        return len(texts)

    def _pooled(self, model: Any, texts: Sequence[str], **options: Any) -> None:
        made = self.base.tokenizer(list(texts), truncation=True, max_length=128, padding=True, return_tensors="pt")
        with torch.inference_mode():
            states = model(**made, **options).last_hidden_state
            mask = made["attention_mask"][..., None]
            (states * mask).sum(1) / mask.sum(1)
