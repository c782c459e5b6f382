"""What a format says about one quantized layer: where its tensors are, and what they hold once read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from forq.quant.weight import QuantWeight


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One quantized linear layer of a checkpoint, known from headers and settings alone.

    Attributes:
        name: of the module, ``model.layers.0.self_attn.q_proj``.
        group_size: inputs that share a scale, resolved (never −1).
        scales: the checkpoint's name of the scales.
        bias: the checkpoint's name of the bias, or None.
        zeros: the checkpoint's name of the zero points, where they are stored as integers.
        tensors: every tensor of the checkpoint that belongs to the layer.
    """

    name: str
    in_features: int
    out_features: int
    bits: int
    group_size: int
    scales: str
    scales_dtype: torch.dtype
    bias: str | None
    tensors: tuple[str, ...]
    zeros: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """One layer read: the integers, the scales as the file stores them, the bias."""

    weight: QuantWeight
    scales: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class ZeroPoints:
    """How a file packs one layer's zero points.

    Attributes:
        name: of the tensor.
        range: smallest and largest zero point it can hold.
        dtype: of its words.
        packed: from zero points (groups, out) to the tensor.
    """

    name: str
    range: tuple[int, int]
    dtype: torch.dtype
    packed: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class FiledCodes:
    """How a file packs one layer's codes.

    Attributes:
        name: of the tensor.
        dtype: of its words.
        packed: from codes as :class:`~forq.quant.weight.QuantWeight` keeps them to the tensor.
    """

    name: str
    dtype: torch.dtype
    packed: Callable[[Tensor], Tensor]
