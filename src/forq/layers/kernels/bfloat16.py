"""Products in bfloat16: what enters a layer, its weights and what leaves it are rounded to it; sums stay in float32.

    y = fl_bf16(Σ_i fl_bf16(x[t, i]) · fl_bf16(w[o, i])) + b

Processors with instructions for bfloat16 multiply it several times as fast as float32. A number keeps eight bits of its
mantissa, so each is off by 1/512 at most. Losses are still float32, but of a slightly different network, so this is
used on request only. All else, the residual stream and the head included, stays in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


@cache
def fast() -> bool:
    """Whether this CPU has instructions for such products."""
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def rounded(product: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A layer's product in bfloat16: x (..., in) → (..., out) in x's dtype.

    Args:
        product: (tokens, in) → (tokens, out), in the dtype of what it is given.
    """
    flat = x.reshape(-1, x.shape[-1])
    padded = flat.new_zeros(_tokens(len(flat)), x.shape[-1], dtype=torch.bfloat16)
    padded[: len(flat)] = flat
    y = product(padded)[: len(flat)]
    return y.to(x.dtype).view(*x.shape[:-1], y.shape[1])


def _tokens(count: int) -> int:
    """So many tokens or up to an eighth more, of few sizes.

    oneDNN compiles a kernel for every size that it meets, and keeps it. With batches of 200 to 960 tokens, each of
    another size, a product took four times as long as one of a known size, and a process grew by a gigabyte.
    """
    step = max(16, 1 << max(0, count.bit_length() - 4))
    return -(-count // step) * step
