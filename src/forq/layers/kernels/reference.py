"""The reference kernel, plain torch: dequantise into a shared buffer, multiply. It defines the truth.

    w = fl32(fl32(code − zero) · scale), or fl32(level[code] · scale),   y = x · wᵀ + b

The difference of whole numbers is exact, so a weight is rounded once in float32 (and once more where x is narrower).

The buffer holds the inputs of a row in the order in which packed codes come apart (:mod:`forq.layers.codes`; at
4 bits the even ones, then the odd ones); x is permuted to match, which costs nothing beside the weight. Measured
against writing every second element, at 2048 × 2048, 4 bits and one thread, as ratios to torch's fp32 linear: 3.4
against 5.2 for 1 token, 1.9 against 2.6 for 16.

Levels are looked up a whole byte of codes at a time, two float32 as one float64, and stay in the order of the inputs:
0.57 ms against 2.0 code by code, at 512 × 2048 and one thread, where codes that count take 0.31.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from forq.coordinates.leaf import SparseCodes
from forq.layers.codes import take_apart
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight, RowWeight, Weight

# A block of rows that stays in the cache between its passes: 256 KiB blocks lose to the calls they take and
# whole matrices lose 1.4× at one token. On a GPU launches cost more than passes over memory.
_BLOCK_BYTES = {"cpu": 2 << 20}
_BLOCK_BYTES_ELSEWHERE = 64 << 20
# From here on one large product beats one for every block (1.23 against 1.35 at 512 tokens): each of those
# packs x anew.
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
            _fill(weight, by_row, start, stop, dense[start:stop], scratch)
        if sparse is not None:
            replace(weight, by_row, sparse, 0, dense, count)
        torch.mm(split, dense.t(), out=y)
    else:
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            dense = scratch.take("dense", (stop - start, columns), x.dtype, x.device)
            _fill(weight, by_row, start, stop, dense, scratch)
            if sparse is not None:
                replace(weight, by_row, sparse, start, dense, count)
            torch.mm(split, dense.t(), out=y[:, start:stop])
    if bias is not None:
        y.add_(bias.to(y.dtype))
    return y.view(*x.shape[:-1], rows)


def replace(weight: QuantWeight, by_row: Tensor, sparse: SparseCodes, start: int, out: Tensor, parts: int) -> None:
    """Put the weights of other codes into rows ``start …`` of a filled buffer, rounded as those around them.

    Args:
        by_row: scales, (out, groups).
        parts: into how many the buffer's rows are taken apart, see :mod:`forq.layers.codes`; 1: inputs are in order.
    """
    columns = weight.in_features
    rows = torch.tensor([start, start + len(out)], device=out.device)
    first, last = torch.searchsorted(sparse.places, rows * columns).tolist()
    places, codes = sparse.places[first:last], sparse.x[first:last]
    row, column = places // columns, places % columns
    group = column // weight.group_size if weight.group_of is None else weight.group_of[column].long()
    if weight.levels is not None:
        shown = weight.levels[codes.long()]
    else:
        shown = codes.to(torch.float32) - weight.zeros[group, row]
    place = column % parts * (columns // parts) + column // parts
    out[row - start, place] = shown.mul_(by_row[row, group]).to(out.dtype)


def matmul_shown(
    x: Tensor,
    show: Callable[[Tensor], None],
    weight: QuantWeight,
    scales: Tensor,
    bias: Tensor | None,
    scratch: Scratch,
) -> Tensor:
    """:func:`matmul` with other codes than the weight's own: ``show`` fills them in, float32 (out, in), where they
    are then dequantised; no second copy of them exists."""
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
    dense = torch.empty(weight.out_features, weight.in_features, device=live[0].device)
    weight.fill(live, 0, weight.out_features, dense, Scratch())
    return dense


def dequantise(weight: QuantWeight, scales: Tensor) -> Tensor:
    """The whole matrix, a fresh float32 (out, in) with its inputs in order: for export, not for layers."""
    rows, columns = weight.out_features, weight.in_features
    split = torch.empty(rows, columns, dtype=torch.float32, device=weight.codes.device)
    _fill(weight, scales.t(), 0, rows, split, Scratch())
    return split.view(rows, weight.parts, -1).transpose(1, 2).reshape(rows, columns)


def _rows_per_block(weight: Weight, device: torch.device) -> int:
    limit = _BLOCK_BYTES.get(device.type, _BLOCK_BYTES_ELSEWHERE)
    return max(8, limit // (4 * weight.in_features))


def _fill(weight: QuantWeight, by_row: Tensor, start: int, stop: int, out: Tensor, scratch: Scratch) -> None:
    """Rows ``start … stop − 1`` of the matrix, part by part, into ``out`` (rows, in)."""
    rows, count, device = stop - start, weight.parts, weight.codes.device
    part = weight.in_features // count
    exact = out.dtype == torch.float32
    block = out if exact else scratch.take("block", (rows, count * part), torch.float32, device)
    if weight.level_bytes is not None:
        some = weight.codes[start:stop]
        # int32: a table look-up by torch wants them wide.
        index = scratch.take("index", (some.numel(),), torch.int32, device).copy_(some.reshape(-1))
        torch.index_select(weight.level_bytes, 0, index, out=block.view(weight.level_bytes.dtype).view(-1))
    else:
        _fill_codes(weight, start, stop, block, scratch)

    scales, zeros = by_row[start:stop], weight.zeros[:, start:stop].t().contiguous()
    size = weight.group_size // count
    if weight.group_of is None and weight.group_size % count == 0 and part % size == 0:
        grouped = block.view(rows, count, weight.groups, size)
        shape = (rows, 1, weight.groups, 1)
        if weight.zero is None:
            grouped.sub_(zeros.view(shape))
        grouped.mul_(scales.reshape(shape))
    else:
        order = group_order(weight)
        if weight.zero is None:
            block.sub_(zeros.index_select(1, order))
        block.mul_(scales.index_select(1, order))
    if not exact:
        out.copy_(block)


def _fill_codes(weight: QuantWeight, start: int, stop: int, block: Tensor, scratch: Scratch) -> None:
    """Rows of codes, their zero point taken off where one serves the whole matrix, or as levels of 3 bits."""
    rows, count = stop - start, weight.parts
    shape = (rows, count, weight.in_features // count)
    apart = scratch.take("codes", shape, torch.uint8, weight.codes.device)
    take_apart(weight.codes[start:stop], weight.bits, apart)
    if weight.levels is not None:
        torch.index_select(weight.levels, 0, apart.view(-1).int(), out=block.view(-1))
    elif weight.zero is not None and weight.bits < 8:
        block.view(shape).copy_(apart.view(torch.int8).sub_(weight.zero))
    else:
        block.view(shape).copy_(apart)
        if weight.zero is not None:
            block.sub_(weight.zero)


def group_order(weight: QuantWeight) -> Tensor:
    """int64 (in,): the group of every column of the buffer."""
    if weight.group_of is not None:
        group_of = weight.group_of.long()
    else:
        group_of = torch.arange(weight.in_features, device=weight.codes.device) // weight.group_size
    return group_of.view(-1, weight.parts).t().reshape(-1)
