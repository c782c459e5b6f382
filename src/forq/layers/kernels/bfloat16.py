"""Products in bfloat16: what enters a layer and its weights are rounded to it, and sums stay in float32.

    y = Σ_i fl_bf16(x[t, i]) · fl_bf16(w[o, i]) + b

Processors with instructions for bfloat16 multiply it several times as fast as float32. A number keeps eight bits of its
mantissa, so each is off by 1/512 of itself at most. Losses are still float32, but of a slightly different network, so
this is used on request only. Where the processor has AMX, forq's own function multiplies; elsewhere torch does, which
rounds y as well.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forq.devices import cpu_has
from forq.layers.kernels.blocks import Put, Sizes, filled, forward_only
from forq.layers.kernels.native import products
from forq.layers.scratch import Scratch


def slow() -> bool:
    """Whether this CPU is known to have no instructions for such products."""
    return cpu_has("amx_bf16", "avx512_bf16", "bf16") is False


def product(x: Tensor, rows: int, put: Put, sizes: Sizes, scratch: Scratch) -> Tensor:
    """See :func:`forq.layers.kernels.blocks.product`.

    Raises:
        RuntimeError: x or the weights require a gradient.
    """
    columns = x.shape[1]
    own = products.able(columns)
    dtype = torch.float32 if own else torch.bfloat16
    rounded = _rounded(x, own, scratch)
    y = torch.empty(len(rounded), rows, dtype=dtype, device=x.device)
    for first, last, dense in filled(rows, columns, put, sizes, scratch, dtype, x.device):
        _multiply(rounded, dense, y[:, first:last])
    return y[: len(x)].to(x.dtype)


def linear(x: Tensor, w: Tensor, scratch: Scratch) -> Tensor:
    """x (..., in) · wᵀ for a dense w (out, in), in x's dtype.

    Raises:
        RuntimeError: x or w requires a gradient.
    """
    flat = x.reshape(-1, x.shape[-1])
    own = products.able(w.shape[1]) and w.dtype == torch.float32 and w.is_contiguous()
    rounded = _rounded(flat, own, scratch)
    y = torch.empty(len(rounded), len(w), dtype=torch.float32 if own else torch.bfloat16, device=x.device)
    _multiply(rounded, w if own else w.to(torch.bfloat16), y)
    return y[: len(flat)].to(x.dtype).view(*x.shape[:-1], len(w))


def _multiply(x: Tensor, w: Tensor, y: Tensor) -> None:
    forward_only(w)
    if w.dtype == torch.float32:
        products.multiply(x, w, y)
    else:
        torch.mm(x, w.t(), out=y)


def _rounded(x: Tensor, own: bool, scratch: Scratch) -> Tensor:
    """x (tokens, in) in bfloat16, with rows below it whose products nobody reads."""
    forward_only(x)
    count = -(-len(x) // products.TOKENS) * products.TOKENS if own else steps(len(x))
    rounded = scratch.take("rounded", (count, x.shape[1]), torch.bfloat16, x.device)
    rounded[: len(x)] = x.detach()
    return rounded


def steps(count: int) -> int:
    """So many tokens or up to an eighth more, of few sizes.

    oneDNN compiles a kernel for every size that it meets, and keeps it. With batches of 192 to 960 tokens, each of
    another size, a product takes five times as long as one of a known size, and a process grows by 800 MB; in steps of
    an eighth, by 50 (``results/bench-bfloat16.json``).
    """
    step = max(16, 1 << max(0, count.bit_length() - 4))
    return -(-count // step) * step
