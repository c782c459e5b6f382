"""±1 at a few coordinates and 0 at the others, for coarse integer grids."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from forq.errors import ConfigError
from forq.noise.bits import Bits, Drawn
from forq.noise.law import MOSTLY_ZERO, Law
from forq.noise.philox import Places


def law(argument: str | None) -> Law:
    """z = ±1 with the probability given as ``sparse:p`` (half of it for each sign), else 0; 2⁻²⁰ ≤ p ≤ 1.

    From a 32-bit r: its lowest bit is the sign, the 31 others decide; off p by at most 2⁻³¹.
    """
    try:
        share = float(argument or "")
    except ValueError:
        share = 0.0
    if not 2.0**-20 <= share <= 1.0:
        raise ConfigError(
            f"noise 'sparse' takes the share of coordinates it moves, as 'sparse:0.01', found {argument!r}"
        )
    bound = round(share * 2**31)

    def sparse(bits: Bits, start: int, count: int) -> tuple[Places, NDArray[np.int8]]:
        drawn = bits.uniform32(start, count)
        # (r >> 1) < bound, in one pass.
        places = np.flatnonzero(drawn < np.uint32(2 * bound)) if bound < 2**31 else np.arange(count)
        return places, (drawn[places] & np.uint32(1)).astype(np.int8) * np.int8(2) - np.int8(1)

    def draw(bits: Bits, start: int, out: Drawn) -> None:
        places, z = sparse(bits, start, len(out))
        out.fill(0)
        out[places] = z

    def sparse_on(bits: Bits, start: int, count: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        from forq.noise import triton as philox

        drawn = philox.uniform32(bits, start, count, device)
        places = torch.nonzero((drawn >> 1 & (1 << 31) - 1) <= bound - 1).view(-1)
        return places, ((drawn[places] & 1) * 2 - 1).to(torch.int8)

    def draw_on(bits: Bits, start: int, count: int, device: torch.device) -> torch.Tensor:
        places, z = sparse_on(bits, start, count, device)
        return torch.zeros(count, device=device).index_put_((places,), z.float())

    if share > MOSTLY_ZERO:
        return Law(draw, portable=True, integer=True, on=draw_on)
    return Law(draw, portable=True, integer=True, sparse=sparse, on=draw_on, sparse_on=sparse_on)
