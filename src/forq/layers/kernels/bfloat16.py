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
    """A layer's product in bfloat16, in x's dtype.

    Args:
        product: computes in the dtype of what it is given.
    """
    return product(x.to(torch.bfloat16)).to(x.dtype)
