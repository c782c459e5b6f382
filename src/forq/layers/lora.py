"""LoRA beside a frozen layer: ``y + (α/r)·B(A x)``, in floats or on a grid of integers.

On a grid both factors are integers times one cell s (ZOQO, arXiv 2501.06736). The range −2^(b−1) … 2^(b−1) − 1 holds
an exact zero; a range symmetric about zero would not. B begins at zero, so the initial model is the base, bit for bit.
The range is ±2/√in, twice what A begins in, so that B can grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from forq.layers.leaves import TensorLeaf
from forq.noise.bits import Bits, leaf_id
from forq.scalars.moves import direction_seed

PREFIX = "base_model.model."
"""What PEFT puts before the name of a module."""

# A stream of a leaf's bits that no noise law can ask for.
_BEGIN_STREAM = 3 << 32


@dataclass(slots=True, eq=False)
class GridFactor:
    """One factor of an adapter as integers, a byte each; never displaced in storage.

    Attributes:
        storage: int8 (rows, columns); the master itself.
        bits: the range is −2^(bits−1) … 2^(bits−1) − 1.
        cell: value of the integer 1.
        overlay: writes the integers to compute with, in place of the storage.
    """

    name: str
    storage: Tensor
    bits: int
    cell: float
    overlay: Callable[[Tensor], None] | None = None

    group = "lora"
    out_axis = 0
    by_rows = True

    @property
    def dtype(self) -> torch.dtype:
        return self.storage.dtype

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.storage.shape
        return rows, columns

    @property
    def range(self) -> tuple[int, int]:
        half = 1 << (self.bits - 1)
        return -half, half - 1

    def read(self) -> Tensor:
        return self.storage.float()

    def write(self, x: Tensor) -> None:
        self.storage.copy_(x)

    def take(self, start: int, stop: int) -> Tensor:
        return self.storage.view(-1)[start:stop].int()

    def put(self, start: int, x: Tensor) -> None:
        self.storage.view(-1)[start : start + len(x)].copy_(x)

    def packed(self, x: Tensor) -> Tensor:
        return x.detach().clone()

    def shown(self) -> Tensor:
        """The factor as the next forward uses it, float32."""
        integers = self.storage
        if self.overlay is not None:
            integers = torch.empty_like(self.storage)
            self.overlay(integers)
        return integers.float().mul_(self.cell)


Factor = TensorLeaf | GridFactor


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """The pair of factors of one layer.

    Attributes:
        module: name of the layer.
        a, b: leaves of shapes (rank, in) and (out, rank), named as PEFT names them.
        alpha: the product is scaled by α/r.
    """

    module: str
    a: Factor
    b: Factor
    alpha: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    def __iter__(self) -> Iterator[Factor]:
        return iter((self.a, self.b))

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) → (..., out), float32."""
        return linear(linear(x.float(), shown(self.a)), shown(self.b)).mul_(self.alpha / self.rank)

    def to(self, device: torch.device) -> Adapter:
        """The adapter on a device."""
        return replace(self, a=_moved(self.a, device), b=_moved(self.b, device))

    def hook(self, layer: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
        """A forward hook of the layer: adds the product to the layer's output."""
        return (y + self(args[0])).to(y.dtype)


def _moved(factor: Factor, device: torch.device) -> Factor:
    if isinstance(factor, GridFactor):
        return replace(factor, storage=factor.storage.to(device))
    return replace(factor, tensor=factor.tensor.to(device))


def shown(factor: Factor) -> Tensor:
    """A factor as the next forward uses it, float32."""
    return factor.shown() if isinstance(factor, GridFactor) else factor.tensor


def names(module: str) -> tuple[str, str]:
    """PEFT's names of the two factors of a module."""
    return f"{PREFIX}{module}.lora_A.weight", f"{PREFIX}{module}.lora_B.weight"


def cell(inputs: int, bits: int) -> float:
    """Value of the integer 1 in either factor: (2/√in) / 2^(bits−1), rounded once to float32."""
    return float(np.float32(2.0 / math.sqrt(inputs) / (1 << (bits - 1))))


def typical(rank: int, alpha: float) -> float:
    """The size of B's coordinates at which the product is as large as a layer's usual weights, 1/√in; a power of 2."""
    return float(2.0 ** round(math.log2(math.sqrt(3.0 * rank) / alpha)))


def begin(module: str, inputs: int, outputs: int, *, rank: int, alpha: float, bits: int | None, seed: int) -> Adapter:
    """An adapter before its first step: A uniform on ±1/√in (as PEFT begins), B zero; a pure function of its arguments.

    Args:
        bits: of a grid, 2 … 8; ``None`` is float32.
        seed: the run's.
    """
    name_a, name_b = names(module)
    draw = Bits(direction_seed(seed, 0), leaf_id(name_a), _BEGIN_STREAM).uniform32(0, rank * inputs)
    if bits is not None:
        half = 1 << (bits - 2)
        drawn = (draw.astype(np.uint64) * np.uint64(2 * half + 1) >> np.uint64(32)).astype(np.int64) - half
        a = torch.from_numpy(drawn.astype(np.int8)).view(rank, inputs)
        b = torch.zeros(outputs, rank, dtype=torch.int8)
        size = cell(inputs, bits)
        return Adapter(module, GridFactor(name_a, a, bits, size), GridFactor(name_b, b, bits, size), alpha)
    # 24 bits and a factor: both exact or rounded once, on every machine.
    share = (draw >> 8).astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    start = torch.from_numpy(share * np.float32(1.0 / math.sqrt(inputs))).view(rank, inputs)
    leaf_a = TensorLeaf(name_a, "lora", torch.float32, start)
    size = typical(rank, alpha)  # B begins at zero
    leaf_b = TensorLeaf(name_b, "lora", torch.float32, torch.zeros(outputs, rank), typical=size)
    return Adapter(module, leaf_a, leaf_b, alpha)
