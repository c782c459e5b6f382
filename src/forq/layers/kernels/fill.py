"""Rows of a quantized matrix, dequantised into a buffer: what the reference kernel computes before it multiplies.

    w = fl32(fl32(code − zero) · scale), or fl32(level[code] · scale)

The difference of integers is exact, so a weight is rounded once in float32, and once more where the buffer is narrower.

The buffer holds the inputs of a row in the order in which packed codes come apart (:mod:`forq.layers.codes`): at 4 bits
the even ones, then the odd ones. x is permuted to match, which costs nothing beside the weight. Measured against
writing every second element, at 2048 × 2048, 4 bits and one thread, as ratios to torch's fp32 linear: 3.4 against 5.2
for 1 token, 1.9 against 2.6 for 16.

Levels are looked up a whole byte of codes at a time, two float32 as one float64, and stay in the order of the inputs:
0.57 ms against 2.0 code by code, at 512 × 2048 and one thread, where plain integer codes take 0.31.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forq.coordinates.leaf import SparseCodes
from forq.layers.codes import take_apart
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight


def fill_rows(weight: QuantWeight, by_row: Tensor, start: int, stop: int, out: Tensor, scratch: Scratch) -> None:
    """Dequantise rows ``start … stop − 1`` into ``out`` (rows, in), part by part.

    Args:
        by_row: scales, float32 (out, groups).
    """
    rows, count, device = stop - start, weight.parts, weight.codes.device
    part = weight.in_features // count
    exact = out.dtype == torch.float32
    block = out if exact else scratch.take("block", (rows, count * part), torch.float32, device)
    if weight.level_bytes is not None:
        codes = weight.codes[start:stop]
        # int32: torch looks up a table by wide indices only.
        index = scratch.take("index", (codes.numel(),), torch.int32, device).copy_(codes.reshape(-1))
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
        order = _group_order(weight)
        if weight.zero is None:
            block.sub_(zeros.index_select(1, order))
        block.mul_(scales.index_select(1, order))
    if not exact:
        out.copy_(block)


def put_sparse(weight: QuantWeight, by_row: Tensor, sparse: SparseCodes, start: int, out: Tensor, parts: int) -> None:
    """Put the weights of other codes into a buffer that holds rows from ``start`` on, rounded as their neighbours.

    Args:
        by_row: scales, (out, groups).
        parts: how many parts the buffer's rows are taken apart into, see :mod:`forq.layers.codes`; 1: inputs in order.
    """
    columns = weight.in_features
    ends = torch.tensor([start, start + len(out)], device=out.device)
    first, last = torch.searchsorted(sparse.places, ends * columns).tolist()
    places, codes = sparse.places[first:last], sparse.x[first:last]
    row, column = places // columns, places % columns
    group = column // weight.group_size if weight.group_of is None else weight.group_of[column].long()
    if weight.levels is not None:
        values = weight.levels[codes.long()]
    else:
        values = codes.to(torch.float32) - weight.zeros[group, row]
    place = column % parts * (columns // parts) + column // parts
    out[row - start, place] = values.mul_(by_row[row, group]).to(out.dtype)


def _fill_codes(weight: QuantWeight, start: int, stop: int, block: Tensor, scratch: Scratch) -> None:
    """Rows of codes: less their zero point where the whole matrix has one, or as levels of 3 bits."""
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


def _group_order(weight: QuantWeight) -> Tensor:
    """int64 (in,): the group of every column of the buffer."""
    if weight.group_of is not None:
        group_of = weight.group_of.long()
    else:
        group_of = torch.arange(weight.in_features, device=weight.codes.device) // weight.group_size
    return group_of.view(-1, weight.parts).t().reshape(-1)
