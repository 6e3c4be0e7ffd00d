"""The base's own linear layers in the forms that answering may use; which is fastest differs by machine (see `paths`).

`EagerLinears` multiplies the weights as they are. `PackedLinears` has them rearranged once for oneDNN, which also applies the
GELU: 1.1 to 1.4 times the speed here, for one more copy of the encoder's weights. `Int8Linears` is about 3.5 times as fast and
not exact: it answers only where the loss was measured and accepted.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from holdfast.backends.lora.base_model import BaseModel, LayerWeights
from holdfast.backends.lora.layouts import Part, Place

PART_NAMES: tuple[Part, ...] = ("qkv", "out", "up", "down")
_PACKED_ROWS = 128
"""Tokens of a pass that oneDNN lays the weights out for; other numbers work too."""


class Linears(Protocol):
    """All linear layers of one base."""

    def apply(self, place: Place, x: Tensor) -> Tensor:
        """[T, inputs] -> [T, outputs], in memory of its own."""
        ...

    def apply_gelu(self, place: Place, x: Tensor) -> Tensor:
        """The same with a GELU behind it."""
        ...

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What they multiply by, as far as it is tensors: for a look at whether it was written to."""
        ...


def weights_at(layer: LayerWeights, part: Part) -> tuple[Tensor, Tensor]:
    """Weight [outputs, inputs] and bias of a fused linear layer."""
    found: Mapping[Part, tuple[Tensor, Tensor]] = {
        "qkv": (layer.qkv, layer.qkv_bias),
        "out": (layer.out, layer.out_bias),
        "up": (layer.up, layer.up_bias),
        "down": (layer.down, layer.down_bias),
    }
    return found[part]


def all_weights(base: BaseModel) -> dict[Place, tuple[Tensor, Tensor]]:
    """Every linear layer of the encoder."""
    return {(number, part): weights_at(layer, part) for number, layer in enumerate(base.layers) for part in PART_NAMES}


class EagerLinears:
    """The weights as they are."""

    def __init__(self, weights: Mapping[Place, tuple[Tensor, Tensor]]) -> None:
        self._weights = weights

    def apply(self, place: Place, x: Tensor) -> Tensor:
        """See Linears."""
        return F.linear(x, *self._weights[place])

    def apply_gelu(self, place: Place, x: Tensor) -> Tensor:
        """See Linears."""
        return F.gelu(F.linear(x, *self._weights[place]))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """See Linears."""
        return tuple(one for pair in self._weights.values() for one in pair)


class PackedLinears:
    """The weights rearranged for oneDNN."""

    def __init__(self, weights: Mapping[Place, tuple[Tensor, Tensor]]) -> None:
        pack = torch.ops.mkldnn._reorder_linear_weight
        self._packed = {
            place: (pack(weight.detach().contiguous(), _PACKED_ROWS), bias.detach()) for place, (weight, bias) in weights.items()
        }

    @staticmethod
    def works() -> bool:
        """Whether this build of torch has what it takes."""
        available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        return available and hasattr(torch.ops.mkldnn, "_linear_pointwise")

    def apply(self, place: Place, x: Tensor) -> Tensor:
        """See Linears."""
        weight, bias = self._packed[place]
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return made

    def apply_gelu(self, place: Place, x: Tensor) -> Tensor:
        """See Linears."""
        weight, bias = self._packed[place]
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "none")
        return made

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """See Linears."""
        return tuple(one for pair in self._packed.values() for one in pair)


class Int8Linears:
    """Weights in 8 bits, a scale per output; inputs are quantised anew in each call, with one scale."""

    def __init__(self, weights: Mapping[Place, tuple[Tensor, Tensor]]) -> None:
        self._packed = {place: _quantised(weight.detach(), bias.detach()) for place, (weight, bias) in weights.items()}

    def apply(self, place: Place, x: Tensor) -> Tensor:
        """See Linears."""
        made: Tensor = torch.ops.quantized.linear_dynamic(x, self._packed[place], False)
        return made

    def apply_gelu(self, place: Place, x: Tensor) -> Tensor:
        """See Linears."""
        return F.gelu(self.apply(place, x))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """None: torch keeps its 8-bit weights in objects of its own, which count no writes."""
        return ()


class MergedLinears:
    """The linear layers of one adapter multiplied into those of the base: for an adapter that has most of the traffic."""

    def __init__(self, others: Linears, own: Linears, places: frozenset[Place]) -> None:
        self._others, self._own, self._places = others, own, places

    def apply(self, place: Place, x: Tensor) -> Tensor:
        """See Linears."""
        return (self._own if place in self._places else self._others).apply(place, x)

    def apply_gelu(self, place: Place, x: Tensor) -> Tensor:
        """See Linears."""
        return (self._own if place in self._places else self._others).apply_gelu(place, x)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Those of the one adapter; the others are the base's."""
        return self._own.tensors


def _quantised(weight: Tensor, bias: Tensor) -> object:
    scales = weight.abs().amax(1).clamp_min(1e-12) / 127
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch wants quantised tensors made by torchao; its kernels stay
        made = torch.quantize_per_channel(weight.contiguous(), scales.double(), torch.zeros(len(weight), dtype=torch.long), 0, torch.qint8)
        packed: object = torch.ops.quantized.linear_prepack(made, bias)
    return packed
