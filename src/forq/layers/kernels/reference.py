"""The reference kernel, plain torch: dequantise into a shared buffer, multiply. It defines the truth.

    w = fl32(fl32(code − zero) · scale), or fl32(level[code] · scale),   y = x · wᵀ + b

How a weight is rounded and laid out in the buffer: :mod:`forq.layers.kernels.fill`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from forq.coordinates.leaf import Overlay, SparseCodes
from forq.layers.kernels.blocks import PackedRows, Product, Sizes, apart, finished, product, rounded
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
BUFFER_BYTES = 128 << 20
"""What is multiplied at once is no larger, so that a vocabulary never becomes a dense table."""


def matmul(
    x: Tensor,
    weight: QuantWeight,
    scales: Tensor,
    bias: Tensor | None,
    scratch: Scratch,
    sparse: SparseCodes | None = None,
    product: Product = product,
) -> Tensor:
    """``x · wᵀ + bias`` with the scales given.

    Args:
        x: (..., in), float; its dtype is the dtype of the product.
        scales: float32 (groups, out).
        bias: (out,) or None.
        scratch: buffers shared with every other layer of the model.
        sparse: codes to compute with in place of the weight's own.
        product: multiplies.

    Returns:
        (..., out) in x's dtype.
    """
    # A copy, so that the scales of a row are neighbours: 0.25 against 0.32 ms at 512 × 512 and one token.
    by_row = scales.t().contiguous()

    def put(start: int, stop: int, out: Tensor) -> None:
        fill_rows(weight, by_row, start, stop, out, scratch)
        if sparse is not None:
            put_sparse(weight, by_row, sparse, start, out, weight.parts)

    flat = apart(x, weight)
    sizes = _sizes(weight, x.device, whole=len(flat) >= _WHOLE_FROM_TOKENS)
    return finished(product(flat, weight.out_features, put, sizes, scratch), x, bias)


def matmul_shown(
    x: Tensor,
    show: Overlay,
    weight: QuantWeight,
    scales: Tensor,
    bias: Tensor | None,
    scratch: Scratch,
    product: Product = product,
    sizes: Sizes | None = None,
) -> Tensor:
    """:func:`matmul` with other codes than the weight's own.

    Args:
        show: writes the codes of some rows into the buffer, float32, in which they are then dequantised in place.
        product: multiplies.
        sizes: of blocks; by default those of whole matrices.
    """
    columns, by_row, zeros = weight.in_features, scales.t().contiguous(), weight.zeros.t()
    order = weight.group_of
    order = torch.arange(columns, device=x.device) // weight.group_size if order is None else order.long()
    in_groups = weight.group_of is None and columns % weight.group_size == 0

    def fill(start: int, stop: int, out: Tensor) -> None:
        show(out, start * columns)
        if weight.levels is not None:
            index = scratch.take("index", (out.numel(),), torch.int32, x.device).copy_(out.view(-1))
            torch.index_select(weight.levels, 0, index, out=out.view(-1))
        some = slice(start, stop)
        if in_groups:
            grouped = out.view(len(out), weight.groups, weight.group_size)
            grouped.sub_(zeros[some, :, None]).mul_(by_row[some, :, None])
        else:
            out.sub_(zeros[some].index_select(1, order)).mul_(by_row[some].index_select(1, order))

    flat = x.reshape(-1, columns)
    sizes = sizes or _sizes(weight, x.device, whole=True)
    return finished(product(flat, weight.out_features, rounded(fill, scratch), sizes, scratch), x, bias)


def matmul_rows(
    x: Tensor,
    weight: RowWeight,
    live: Sequence[Tensor],
    bias: Tensor | None,
    scratch: Scratch,
    codes: PackedRows | None = None,
    product: Product = product,
) -> Tensor:
    """:func:`matmul` for a weight that dequantises its own rows.

    Args:
        codes: makes the packed codes of some rows, to compute with in place of the weight's own.
        product: multiplies.
    """

    def fill(start: int, stop: int, out: Tensor) -> None:
        weight.fill(live, start, stop, out, scratch, codes and codes(start, stop))

    flat, put = x.reshape(-1, weight.in_features), rounded(fill, scratch)
    # Where x is float32 one product at the end, as in `matmul`; a narrower x takes each block's rounded copy.
    whole = len(flat) >= _WHOLE_FROM_TOKENS and x.dtype == torch.float32
    return finished(product(flat, weight.out_features, put, _sizes(weight, x.device, whole), scratch), x, bias)


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


def _sizes(weight: Weight, device: torch.device, whole: bool) -> Sizes:
    """Rows of a block, and as many whole blocks as may wait for one product."""
    written = _rows_per_block(weight, device)
    most = BUFFER_BYTES // (4 * weight.in_features) // written * written
    return Sizes(written, max(written, min(most, weight.out_features)) if whole else written)
