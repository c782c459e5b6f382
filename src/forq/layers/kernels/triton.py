"""The kernel for GPUs, in Triton: it dequantises a matrix into the shared buffer, and torch multiplies.

Weights are those of the reference kernel bit for bit: the difference and the product are rounded once each, then once
to x's dtype. The buffer holds them in order and in x's dtype, so nothing beside it is allocated and x is not permuted;
codes, zero points and scales are read where they are stored, so whatever moves counts from the next call on.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from forq.coordinates.leaf import SparseCodes
from forq.layers.kernels.blocks import forward_only
from forq.layers.kernels.fill import put_sparse
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight

_ROWS, _COLUMNS = 4, 512
"""Block of the matrix that one program writes."""


def matmul(
    x: Tensor,
    weight: QuantWeight,
    scales: Tensor,
    bias: Tensor | None,
    scratch: Scratch,
    sparse: SparseCodes | None = None,
) -> Tensor:
    """``x · wᵀ + bias``: see :func:`forq.layers.kernels.reference.matmul`.

    Raises:
        RuntimeError: x or the scales require a gradient, which this kernel would drop in silence.
    """
    forward_only(x, scales)
    rows, columns = weight.out_features, weight.in_features
    flat = x.reshape(-1, columns)
    dense = scratch.take("dense", (rows, columns), x.dtype, x.device)
    fill(weight, scales, dense)
    if sparse is not None:
        put_sparse(weight, scales.t(), sparse, 0, dense, 1)
    y = torch.empty(len(flat), rows, dtype=x.dtype, device=x.device)
    torch.mm(flat, dense.t(), out=y)
    if bias is not None:
        y.add_(bias.to(y.dtype))
    return y.view(*x.shape[:-1], rows)


def fill(weight: QuantWeight, scales: Tensor, out: Tensor) -> None:
    """Write the whole matrix.

    Args:
        weight: on a GPU.
        scales: float32 (groups, out), of any strides.
        out: (out, in), contiguous; float32 or narrower.
    """
    rows, columns = out.shape
    zeros, levels, order = weight.zeros, weight.levels, weight.group_of
    absent = weight.codes  # a pointer that is not followed
    grid = (triton.cdiv(columns, _COLUMNS), triton.cdiv(rows, _ROWS))
    _fill[grid](
        *(weight.codes, scales, zeros, absent if levels is None else levels, absent if order is None else order, out),
        *(rows, columns, weight.codes.stride(0), *scales.stride(), *zeros.stride()),
        BITS=weight.bits,
        GROUP=weight.group_size,
        ZERO=weight.zero,
        LEVELS=levels is not None,
        ORDER=order is not None,
        ROWS=_ROWS,
        COLUMNS=_COLUMNS,
        enable_fp_fusion=False,
    )


@triton.jit
def _fill(  # type: ignore[no-untyped-def]
    codes, scales, zeros, levels, order, out,
    rows, columns, codes_row, scales_group, scales_row, zeros_group, zeros_row,
    BITS: tl.constexpr, GROUP: tl.constexpr, ZERO: tl.constexpr, LEVELS: tl.constexpr, ORDER: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    column = (tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    inside = (row < rows) & (column < columns)
    here = codes + row * codes_row
    if BITS == 3:
        # Two planes: the low bits, in two halves of columns/8 bytes, then the high ones.
        part, place, eighth = column % 8, column // 8, columns // 8
        low = tl.load(here + part // 4 * eighth + place, inside, 0).to(tl.int32) >> part % 4 * 2 & 3
        high = tl.load(here + 2 * eighth + place, inside, 0).to(tl.int32) >> part & 1
        code = low | high << 2
    else:
        per: tl.constexpr = 8 // BITS
        code = tl.load(here + column // per, inside, 0).to(tl.int32) >> column % per * BITS & (1 << BITS) - 1
    if ORDER:
        group = tl.load(order + column, column < columns, 0)
    else:
        group = column // GROUP
    if LEVELS:
        shown = tl.load(levels + code, inside, 0.0)
    elif ZERO is None:
        zero = tl.load(zeros + group * zeros_group + row * zeros_row, inside, 0)
        shown = code.to(tl.float32) - zero.to(tl.float32)
    else:
        shown = (code - ZERO).to(tl.float32)
    weight = shown * tl.load(scales + group * scales_group + row * scales_row, inside, 0.0)
    tl.store(out + row * columns + column, weight.to(out.dtype.element_ty), inside)
