"""Leaves of layers: float tensors that a probe is written into, zero points, and packed codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from forq.coordinates.leaf import Overlay, Shared, SparseCodes
from forq.layers.layer import FiledCodes, Live, ZeroPoints
from forq.layers.linear import QuantLinear
from forq.layers.weight import CodedWeight


@dataclass(frozen=True, slots=True, eq=False)
class TensorLeaf:
    """A float tensor that a model reads in its forward pass: a norm's weight, a bias, a layer's scales.

    Attributes:
        tensor: the storage itself; written in place, never re-bound.
        dtype: what the checkpoint's file stores.
        out_axis: which axis of the tensor counts the outputs of its layer.
        typical: typical size of a coordinate, for a tensor that begins at zero.
    """

    name: str
    group: str
    dtype: torch.dtype
    tensor: Tensor
    out_axis: int = 0
    typical: float = 2.0**-6

    @property
    def shape(self) -> torch.Size:
        """Shape of the leaf, which is the shape of the checkpoint's tensor."""
        return self.tensor.shape

    def read(self) -> Tensor:
        """A fresh float32 copy."""
        return self.tensor.detach().to(torch.float32, copy=True)

    @torch.no_grad()
    def write(self, x: Tensor) -> None:
        """Copy into the storage, rounding to its dtype."""
        self.tensor.copy_(x)


@dataclass(frozen=True, slots=True, eq=False)
class ZeroLeaf:
    """The zero points of one quantized layer, integers that the file packs; in the layout (groups, out).

    Making the leaf changes nothing; :meth:`open` lets the layer use a kernel that reads zero points in every forward.
    """

    layer: QuantLinear
    points: ZeroPoints

    group = "zeros"
    out_axis = 1

    @property
    def name(self) -> str:
        return self.points.name

    @property
    def dtype(self) -> torch.dtype:
        return self.points.dtype

    @property
    def range(self) -> tuple[int, int]:
        return self.points.range

    def open(self) -> None:
        self.layer.use_moving_zeros()

    def read(self) -> Tensor:
        return self.layer.weight.zeros.float()

    def write(self, x: Tensor) -> None:
        self.layer.weight.zeros.copy_(x)

    def packed(self, x: Tensor) -> Tensor:
        return self.points.packed(x.cpu())


class Codes(ABC):
    """The codes of one matrix as its weight packs them: integers, row by row.

    Attributes:
        file: how the file packs them.
        weight: the weight that holds them.
    """

    __slots__ = ()

    group = "codes"
    out_axis = 0
    file: FiledCodes

    @property
    @abstractmethod
    def weight(self) -> CodedWeight: ...

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def dtype(self) -> torch.dtype:
        return self.file.dtype

    @property
    def shape(self) -> tuple[int, int]:
        return self.file.shape

    @property
    def range(self) -> tuple[int, int]:
        return self.file.range

    @property
    def by_rows(self) -> bool:
        return self.file.by_rows

    @property
    def storage(self) -> Tensor:
        return self.weight.codes

    def read(self) -> Tensor:
        return self.take(0, self.shape[0] * self.shape[1]).float().view(self.shape)

    def write(self, x: Tensor) -> None:
        self.put(0, x.reshape(-1))

    def take(self, start: int, stop: int) -> Tensor:
        return self.weight.take_codes(start, stop)

    def put(self, start: int, x: Tensor) -> None:
        self.weight.put_codes(start, x)

    def at(self, places: Tensor) -> Tensor:
        return self.weight.codes_at(places)

    def put_at(self, codes: SparseCodes) -> None:
        self.weight.put_codes_at(codes.places, codes.x)

    def packed(self, x: Tensor) -> Tensor:
        packed = self.file.packed(x.cpu())
        return packed.clone() if packed.data_ptr() == self.storage.data_ptr() else packed  # codes go on moving


@dataclass(slots=True, eq=False)
class CodeLeaf(Codes):
    """The codes of one quantized layer.

    Making the leaf changes nothing; :meth:`open` lets the layer use a kernel that reads codes in every forward.
    """

    layer: QuantLinear
    file: FiledCodes

    @property
    def weight(self) -> CodedWeight:
        return cast(CodedWeight, self.layer.frozen)

    @property
    def overlay(self) -> Overlay | None:
        return self.layer.code_overlay

    @overlay.setter
    def overlay(self, fill: Overlay | None) -> None:
        self.layer.code_overlay = fill

    @property
    def sparse(self) -> SparseCodes | None:
        return self.layer.sparse_codes

    @sparse.setter
    def sparse(self, codes: SparseCodes | None) -> None:
        self.layer.sparse_codes = codes

    def open(self) -> None:
        self.layer.use_moving_codes()


class LiveLeaf(TensorLeaf):
    """A continuous tensor of one quantized layer, in the layout of the checkpoint's: scales, offsets, codebooks."""

    __slots__ = ("layer", "run")
    layer: QuantLinear
    run: int

    def __init__(self, layer: QuantLinear, spec: Live) -> None:
        super().__init__(spec.name, spec.group, spec.dtype, layer.live[spec], out_axis=spec.out_axis)
        object.__setattr__(self, "layer", layer)
        object.__setattr__(self, "run", spec.run)

    @property
    def outputs(self) -> Shared | None:
        """See :class:`forq.coordinates.leaf.ScaleLeaf`."""
        axis, layer = self.out_axis, self.layer
        by_output = self.group == "scales" and axis >= 0 and self.shape[axis] == layer.out_features * self.run
        return Shared(layer.leaf_name, self.run) if by_output and layer.multiplies else None

    def multiply(self, factors: Callable[[Sequence[int]], Tensor] | None) -> None:
        """See :class:`forq.coordinates.leaf.ScaleLeaf`."""
        self.layer.factors = factors
