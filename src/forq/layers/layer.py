"""One quantized layer as a format describes it: where its tensors are, and what they hold once read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from forq.layers.weight import Weight

SHARED = -1
"""Output axis of a tensor that all outputs of its layer share."""


@dataclass(frozen=True, slots=True)
class Live:
    """One continuous tensor of a quantized layer, as its file stores it: what a probe moves.

    Attributes:
        name: of the tensor in the checkpoint; it keys the noise.
        dtype: what a saved file stores.
        group: ``scales``, ``offsets`` (continuous zero points) or ``codebooks``.
        out_axis: which axis counts the outputs of the layer; :data:`SHARED` where none does.
        run: neighbours along that axis which belong to one output, where a file lists the groups of a row one behind
            the other.
    """

    name: str
    dtype: torch.dtype
    group: str = "scales"
    out_axis: int = 0
    run: int = 1


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One quantized layer of a checkpoint, linear or an embedding, known from headers and settings alone.

    Attributes:
        name: of the module, ``model.layers.0.self_attn.q_proj``.
        group_size: inputs that share a scale, resolved (never −1).
        live: its continuous tensors, the scales first.
        bias: the checkpoint's name of the bias, or None.
        zeros: the checkpoint's name of the zero points, where they are integers that move by whole cells.
        tensors: every tensor of the checkpoint that belongs to the layer.
    """

    name: str
    in_features: int
    out_features: int
    bits: int
    group_size: int
    live: tuple[Live, ...]
    bias: str | None
    tensors: tuple[str, ...]
    zeros: str | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.out_features, self.in_features


def as_stored(tensor: Tensor) -> Tensor:
    """The scales of files that keep them as the kernels read them, (groups, out)."""
    return tensor


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """One layer as read.

    Attributes:
        weight: the frozen weight: integers, indices, blocks.
        live: the tensors of ``LayerSpec.live``, in the file's shapes; float32, or a dtype that float32 holds.
        bias: as the file stores it.
        arrange: from the scales in the file's shape to (groups, out), as the kernels of a
            :class:`~forq.layers.weight.QuantWeight` read them. Continuous zero points are the second live tensor and
            are arranged alike; ``arrange`` then returns a view. Weights of other kinds take live tensors as they are.
    """

    weight: Weight
    live: tuple[Tensor, ...]
    bias: Tensor | None
    arrange: Callable[[Tensor], Tensor] = as_stored


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
        shape: (rows, codes of a row): one code a weight, or fewer where a code names several.
        bits: of one code.
        packed: from codes as the layer's :class:`~forq.layers.weight.CodedWeight` keeps them to the tensor. It may
            be the same tensor.
        by_rows: some rows of such codes give as many rows of the tensor.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, int]
    bits: int
    packed: Callable[[Tensor], Tensor]
    by_rows: bool = False

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest code."""
        return 0, (1 << self.bits) - 1
