"""The forward pass, without padding: rows of one batch lie behind one another as [tokens, hidden].

Linear layers see only real tokens; attention alone is padded. LoRA is added per segment of consecutive tokens, so that a
batch sorted by adapter shares every base GEMM (S-LoRA's idea in the form that measured best on a CPU: sorted segments).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from holdfast.backends.lora.base_model import BaseModel, LayerWeights


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """LoRA of one (fused) linear layer with k outputs side by side: k = 3 for query, key, value, else 1."""

    down: Tensor
    """[k r, inputs]: the A matrices under one another."""
    ups: tuple[Tensor, ...]
    """k times [outputs / k, r]: the B matrices, with alpha / r multiplied in."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerLora:
    """LoRA of one encoder layer."""

    qkv: Pair
    out: Pair
    up: Pair
    down: Pair


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Tokens ``start .. stop`` of the packed batch go through these updates: encoder layer to its LoRA."""

    start: int
    stop: int
    layers: Mapping[int, LayerLora]


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """Where the tokens of n rows lie in a packed batch of T tokens, and in its padded form [n, longest]."""

    lengths: Tensor
    """[n]."""
    row_of: Tensor
    """[T]: row of each token."""
    place: Tensor
    """[T]: position of each token in the flattened padded form."""
    longest: int
    mask: Tensor | None
    """[n, 1, 1, longest], true on real tokens; None when all rows are equally long."""

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Packing:
        """The packing of rows of these lengths, each at least 1."""
        sizes = torch.tensor(lengths)
        row_of = torch.repeat_interleave(torch.arange(len(lengths)), sizes)
        starts = torch.cumsum(sizes, 0) - sizes
        position = torch.arange(int(sizes.sum())) - starts[row_of]
        longest = int(sizes.max())
        even = int(sizes.min()) == longest
        mask = None if even else (torch.arange(longest) < sizes[:, None])[:, None, None, :]
        return cls(sizes, row_of, row_of * longest + position, longest, mask)

    @property
    def position(self) -> Tensor:
        """[T]: position of each token in its row."""
        return self.place - self.row_of * self.longest


def embed_tokens(base: BaseModel, ids: Sequence[Sequence[int]], packing: Packing) -> Tensor:
    """Word and position vectors of a packed batch, normed: [T, hidden]."""
    flat = torch.tensor([one for row in ids for one in row])
    x = base.words[flat] + base.positions[packing.position]
    return _norm(x, base.first_norm, base.norm_epsilon)


def run_layers(base: BaseModel, x: Tensor, packing: Packing, layers: range, segments: Sequence[Segment] = ()) -> Tensor:
    """Hidden states [T, hidden] after the given layers, in order."""
    for number in layers:
        here = [(s.start, s.stop, s.layers[number]) for s in segments if number in s.layers]
        x = _layer(base, base.layers[number], x, packing, here)
    return x


def pool(x: Tensor, packing: Packing) -> Tensor:
    """Mean over the tokens of each row: [T, hidden] -> [n, hidden]."""
    sums = x.new_zeros(len(packing.lengths), x.shape[1]).index_add(0, packing.row_of, x)
    return sums / packing.lengths[:, None]


Here = Sequence[tuple[int, int, LayerLora]]


def _layer(base: BaseModel, w: LayerWeights, x: Tensor, packing: Packing, here: Here) -> Tensor:
    qkv = _linear(x, w.qkv, w.qkv_bias, [(a, b, lora.qkv) for a, b, lora in here])  # [T, h] -> [T, 3h]
    mixed = attend(qkv, packing, base.head_count)  # [T, 3h] -> [T, h]
    made = _linear(mixed, w.out, w.out_bias, [(a, b, lora.out) for a, b, lora in here])
    x = _norm(made + x, w.norm, base.norm_epsilon)
    wide = F.gelu(_linear(x, w.up, w.up_bias, [(a, b, lora.up) for a, b, lora in here]))  # [T, h] -> [T, m]
    made = _linear(wide, w.down, w.down_bias, [(a, b, lora.down) for a, b, lora in here])  # [T, m] -> [T, h]
    return _norm(made + x, w.last_norm, base.norm_epsilon)


def _linear(x: Tensor, weight: Tensor, bias: Tensor, pairs: Sequence[tuple[int, int, Pair]]) -> Tensor:
    y = F.linear(x, weight, bias)
    if torch.is_grad_enabled() and len(pairs) == 1:
        return y + _update(x, pairs[0][2])  # out of place, over all tokens: the path of training, where gradients flow
    for start, stop, pair in pairs:
        narrow, rank, at = x[start:stop] @ pair.down.T, pair.ups[0].shape[1], 0
        for k, up in enumerate(pair.ups):
            y[start:stop, at : at + len(up)].addmm_(narrow[:, k * rank : (k + 1) * rank], up.T)
            at += len(up)
    return y


def _update(x: Tensor, pair: Pair) -> Tensor:
    narrow = x @ pair.down.T  # [T, inputs] -> [T, k r]
    if len(pair.ups) == 1:
        return narrow @ pair.ups[0].T
    return torch.cat([part @ up.T for part, up in zip(narrow.chunk(len(pair.ups), 1), pair.ups, strict=True)], 1)


def attend(qkv: Tensor, packing: Packing, heads: int) -> Tensor:
    """Attention within each row: [T, 3 hidden] -> [T, hidden]."""
    n, longest, width = len(packing.lengths), packing.longest, qkv.shape[1] // 3
    padded = qkv if packing.mask is None else qkv.new_zeros(n * longest, 3 * width).index_copy(0, packing.place, qkv)
    q, k, v = padded.view(n, longest, 3, heads, width // heads).permute(2, 0, 3, 1, 4)  # 3 x [n, heads, longest, width / heads]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=packing.mask)
    flat = mixed.transpose(1, 2).reshape(n * longest, width)
    return flat if packing.mask is None else flat.index_select(0, packing.place)


def _norm(x: Tensor, norm: tuple[Tensor, Tensor], epsilon: float) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],), norm[0], norm[1], epsilon)
