"""Products with a matrix that is dequantised block by block: ``y = x · wᵀ + b``.

A block of rows is written while it fits into the cache; several blocks may wait for one product. The whole matrix
exists at once only where it is small, so a vocabulary of 262,144 never becomes a dense table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight

Put = Callable[[int, int, Tensor], None]
"""Writes rows ``start … stop − 1`` of the matrix into a buffer (rows, in), of any float dtype."""

PackedRows = Callable[[int, int], Tensor]
"""Packed codes of rows ``start … stop − 1`` of a matrix."""


class Sizes(NamedTuple):
    """How many rows of a matrix are written at a time, and how many are multiplied at a time, no fewer."""

    written: int
    multiplied: int


Product = Callable[[Tensor, int, Put, Sizes, Scratch], Tensor]
"""``x · wᵀ`` for x (tokens, in) and a number of rows: a fresh (tokens, rows) of x's dtype."""


def product(x: Tensor, rows: int, put: Put, sizes: Sizes, scratch: Scratch) -> Tensor:
    """A :data:`Product` in x's dtype."""
    y = torch.empty(len(x), rows, dtype=x.dtype, device=x.device)
    for first, last, dense in filled(rows, x.shape[1], put, sizes, scratch, x.dtype, x.device):
        torch.mm(x, dense.t(), out=y[:, first:last])
    return y


def filled(
    rows: int, columns: int, put: Put, sizes: Sizes, scratch: Scratch, dtype: torch.dtype, device: torch.device
) -> Iterator[tuple[int, int, Tensor]]:
    """Blocks of the matrix, one after the other in one buffer: first row, last row + 1, and the rows (n, in)."""
    for first in range(0, rows, sizes.multiplied):
        last = min(first + sizes.multiplied, rows)
        dense = scratch.take("dense", (last - first, columns), dtype, device)
        for start in range(first, last, sizes.written):
            stop = min(start + sizes.written, last)
            put(start, stop, dense[start - first : stop - first])
        yield first, last, dense


def forward_only(*tensors: Tensor) -> None:
    """Refuse gradients, which kernels of our own would drop in silence.

    Raises:
        RuntimeError: one of the tensors requires a gradient.
    """
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise RuntimeError("quantized layers are computed forward only: no gradient passes through them")


def finished(y: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """y (tokens, out) with the bias added, in the shape of x (..., in)."""
    if bias is not None:
        y.add_(bias.to(y.dtype))
    return y.view(*x.shape[:-1], y.shape[1])


def apart(x: Tensor, weight: QuantWeight) -> Tensor:
    """x (..., in) as (tokens, in) with the inputs in the order in which packed codes come apart."""
    columns, count = weight.in_features, weight.parts
    return x.reshape(-1, columns // count, count).transpose(1, 2).reshape(-1, columns)


def rounded(fill: Put, scratch: Scratch) -> Put:
    """A function that writes float32, for buffers of any dtype: through a buffer of its own where they are narrower."""

    def put(start: int, stop: int, out: Tensor) -> None:
        if out.dtype == torch.float32:
            fill(start, stop, out)
            return
        exact = scratch.take("exact", tuple(out.shape), torch.float32, out.device)
        fill(start, stop, exact)
        out.copy_(exact)

    return put
