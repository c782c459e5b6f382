"""Products by the native kernel: as the reference kernel's, with rows from the compiled functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from forq.coordinates.leaf import Overlay, SparseCodes
from forq.layers.kernels import reference
from forq.layers.kernels.blocks import PackedRows, Product, Sizes, apart, finished, forward_only, product, rounded
from forq.layers.kernels.fill import put_sparse
from forq.layers.kernels.native.fill import Blocks, fill_blocks, fill_codes
from forq.layers.scratch import Scratch
from forq.layers.weight import QuantWeight, RowWeight

# A product packs x anew for every block, which counts once x is as large as a block: at 1,024 tokens and 576 × 1536
# blocks of 8 MiB take 1.02 of a dense product, of 2 MiB 1.17; at 16 tokens and 2048 × 2048 they take 1.01 and 0.67.
_FEW_TOKENS = 512
_BYTES_FOR_FEW, BUFFER_BYTES = 2 << 20, 8 << 20


def matmul(
    x: Tensor,
    weight: QuantWeight,
    scales: Tensor,
    bias: Tensor | None,
    scratch: Scratch,
    sparse: SparseCodes | None = None,
    product: Product = product,
) -> Tensor:
    """``x · wᵀ + bias``: see :func:`forq.layers.kernels.reference.matmul`.

    Raises:
        RuntimeError: x or the scales require a gradient.
    """
    forward_only(x, scales)
    by_row = scales.t().to(torch.float32).contiguous()
    fill = rounded(lambda start, stop, out: fill_codes(weight, by_row, start, stop, out), scratch)

    def put(start: int, stop: int, out: Tensor) -> None:
        fill(start, stop, out)
        if sparse is not None:
            put_sparse(weight, by_row, sparse, start, out, weight.parts)

    flat = apart(x, weight)
    return finished(product(flat, weight.out_features, put, _sizes(flat), scratch), x, bias)


def matmul_shown(
    x: Tensor,
    show: Overlay,
    weight: QuantWeight,
    scales: Tensor,
    bias: Tensor | None,
    scratch: Scratch,
    product: Product = product,
) -> Tensor:
    """See :func:`forq.layers.kernels.reference.matmul_shown`; in this kernel's blocks."""
    sizes = _sizes(x.reshape(-1, weight.in_features))
    return reference.matmul_shown(x, show, weight, scales, bias, scratch, product, sizes)


def matmul_rows(
    x: Tensor,
    weight: RowWeight,
    live: Sequence[Tensor],
    bias: Tensor | None,
    scratch: Scratch,
    codes: PackedRows | None = None,
    product: Product = product,
) -> Tensor:
    """:func:`matmul` for a matrix in GGUF's blocks; see :func:`forq.layers.kernels.reference.matmul_rows`."""
    forward_only(x, *live)
    blocks, flat = cast(Blocks, weight), x.reshape(-1, weight.in_features)
    live = [tensor.to(torch.float32).contiguous() for tensor in live]

    def fill(start: int, stop: int, out: Tensor) -> None:
        fill_blocks(blocks, live, start, stop, out, codes and codes(start, stop))

    return finished(product(flat, weight.out_features, rounded(fill, scratch), _sizes(flat), scratch), x, bias)


def _sizes(x: Tensor) -> Sizes:
    tokens, columns = x.shape
    rows = max(8, (_BYTES_FOR_FEW if tokens < _FEW_TOKENS else BUFFER_BYTES) // (4 * columns))
    return Sizes(rows, rows)
