"""The reference kernel, plain torch: dequantise into a shared buffer, multiply. It defines the truth.

    w = fl32(fl32(code − zero) · scale), or fl32(level[code] · scale),   y = x · wᵀ + b

How a weight is rounded and laid out in the buffer: :mod:`forq.layers.kernels.fill`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from forq.coordinates.leaf import SparseCodes
from forq.layers.kernels.fill import fill_rows, put_sparse
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight, RowWeight, Weight

# A block of rows that stays in the cache between its passes: 256 KiB blocks lose to the calls they take and
# whole matrices lose 1.4× at one token. On a GPU launches cost more than passes over memory.
BLOCK_BYTES = {"cpu": 2 << 20}
BLOCK_BYTES_ELSEWHERE = 64 << 20
# From so many tokens on one large product beats a product for every block (1.23 against 1.35 at 512 tokens): each of
# those packs x anew.
_WHOLE_FROM_TOKENS = 64


def matmul(
    x: Tensor,
    weight: QuantWeight,
    scales: Tensor,
    bias: Tensor | None,
    scratch: Scratch,
    sparse: SparseCodes | None = None,
) -> Tensor:
    """``x · wᵀ + bias`` with the scales given.

    Args:
        x: (..., in), float; its dtype is the dtype of the product.
        scales: float32 (groups, out).
        bias: (out,) or None.
        scratch: buffers shared with every other layer of the model.
        sparse: codes to compute with in place of the weight's own.

    Returns:
        (..., out) in x's dtype.
    """
    rows, columns = weight.out_features, weight.in_features
    tokens = x.numel() // columns
    count = weight.parts
    split = x.reshape(tokens, columns // count, count).transpose(1, 2).reshape(tokens, columns)
    y = torch.empty(tokens, rows, dtype=x.dtype, device=x.device)
    # A copy, so that the scales of a row are neighbours: 0.25 against 0.32 ms at 512 × 512 and one token.
    by_row = scales.t().contiguous()
    step = _rows_per_block(weight, x.device)
    if tokens >= _WHOLE_FROM_TOKENS:
        dense = scratch.take("dense", (rows, columns), x.dtype, x.device)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            fill_rows(weight, by_row, start, stop, dense[start:stop], scratch)
        if sparse is not None:
            put_sparse(weight, by_row, sparse, 0, dense, count)
        torch.mm(split, dense.t(), out=y)
    else:
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            dense = scratch.take("dense", (stop - start, columns), x.dtype, x.device)
            fill_rows(weight, by_row, start, stop, dense, scratch)
            if sparse is not None:
                put_sparse(weight, by_row, sparse, start, dense, count)
            torch.mm(split, dense.t(), out=y[:, start:stop])
    if bias is not None:
        y.add_(bias.to(y.dtype))
    return y.view(*x.shape[:-1], rows)


def matmul_shown(
    x: Tensor,
    show: Callable[[Tensor], None],
    weight: QuantWeight,
    scales: Tensor,
    bias: Tensor | None,
    scratch: Scratch,
) -> Tensor:
    """:func:`matmul` with other codes than the weight's own.

    Args:
        show: writes the codes into the buffer, float32 (out, in), in which they are then dequantised in place.
    """
    rows, columns = weight.out_features, weight.in_features
    dense = scratch.take("dense", (rows, columns), torch.float32, x.device)
    show(dense)
    step = _rows_per_block(weight, x.device)
    if weight.levels is not None:
        for start in range(0, rows, step):
            block = dense[start : start + step].view(-1)
            index = scratch.take("index", (block.numel(),), torch.int32, x.device).copy_(block)
            torch.index_select(weight.levels, 0, index, out=block)
    by_row, zeros = scales.t().contiguous(), weight.zeros.t()
    if weight.group_of is None and columns % weight.group_size == 0:
        grouped = dense.view(rows, weight.groups, weight.group_size)
        grouped.sub_(zeros[:, :, None]).mul_(by_row[:, :, None])
    else:
        order = weight.group_of
        order = torch.arange(columns, device=x.device) // weight.group_size if order is None else order.long()
        for start in range(0, rows, step):
            some = slice(start, start + step)
            dense[some].sub_(zeros[some].index_select(1, order)).mul_(by_row[some].index_select(1, order))
    y = x @ dense.to(x.dtype).t()
    return y if bias is None else y.add_(bias.to(y.dtype))


def matmul_rows(x: Tensor, weight: RowWeight, live: Sequence[Tensor], bias: Tensor | None, scratch: Scratch) -> Tensor:
    """:func:`matmul` for a weight that dequantises its own rows."""
    rows, columns = weight.out_features, weight.in_features
    flat = x.reshape(-1, columns)
    y = torch.empty(len(flat), rows, dtype=x.dtype, device=x.device)
    step = _rows_per_block(weight, x.device)
    # Where x is float32 one product at the end, as in `matmul`; a narrower x takes each block's rounded copy.
    whole = len(flat) >= _WHOLE_FROM_TOKENS and x.dtype == torch.float32
    dense = scratch.take("dense", (rows if whole else min(step, rows), columns), torch.float32, x.device)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        block = dense[start:stop] if whole else dense[: stop - start]
        weight.fill(live, start, stop, block, scratch)
        if not whole:
            torch.mm(flat, block.to(x.dtype).t(), out=y[:, start:stop])
    if whole:
        torch.mm(flat, dense.t(), out=y)
    if bias is not None:
        y.add_(bias.to(y.dtype))
    return y.view(*x.shape[:-1], rows)


def dequantise_rows(weight: RowWeight, live: Sequence[Tensor]) -> Tensor:
    """The whole matrix of such a weight, a fresh float32 (out, in): for export and tests."""
    dense, scratch = torch.empty(weight.out_features, weight.in_features, device=live[0].device), Scratch()
    step = _rows_per_block(weight, dense.device)
    for start in range(0, weight.out_features, step):  # what a weight needs beside the result stays a block
        stop = min(start + step, weight.out_features)
        weight.fill(live, start, stop, dense[start:stop], scratch)
    return dense


def dequantise(weight: QuantWeight, scales: Tensor) -> Tensor:
    """The whole matrix, a fresh float32 (out, in) with its inputs in order: for export, not for layers."""
    rows, columns = weight.out_features, weight.in_features
    split = torch.empty(rows, columns, dtype=torch.float32, device=weight.codes.device)
    fill_rows(weight, scales.t(), 0, rows, split, Scratch())
    return split.view(rows, weight.parts, -1).transpose(1, 2).reshape(rows, columns)


def _rows_per_block(weight: Weight, device: torch.device) -> int:
    limit = BLOCK_BYTES.get(device.type, BLOCK_BYTES_ELSEWHERE)
    return max(8, limit // (4 * weight.in_features))
