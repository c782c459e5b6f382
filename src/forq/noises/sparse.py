"""±1 at a few coordinates, 0 at the others: a probe for lattices whose cells are coarse."""

from __future__ import annotations

import numpy as np

from forq.core import ConfigError
from forq.noise import Bits, Float32, Law


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
    bound = np.uint32(round(share * 2**31))

    def draw(bits: Bits, start: int, out: Float32) -> None:
        drawn = bits.uniform32(start, len(out))
        sign = (drawn & np.uint32(1)).astype(np.int8) * np.int8(2) - np.int8(1)
        out[:] = np.where(drawn >> np.uint32(1) < bound, sign, np.int8(0))

    return Law(draw, portable=True, whole=True)
