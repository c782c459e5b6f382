"""z ~ N(0, 1), as the papers draw it: one 64-bit word for each coordinate, by Box and Muller's transform.

Logarithm and cosine differ in the last bit between maths libraries, so a journal made with this law replays
bit for bit only where it was made: ``portable`` is false, and the header says so.
"""

from __future__ import annotations

import numpy as np

from forq.core import ConfigError
from forq.noise import Bits, Float32, Law


def _draw(bits: Bits, start: int, out: Float32) -> None:
    words = bits.words(start, len(out))
    radius = ((words >> np.uint64(32)).astype(np.float64) + 1.0) * 2.0**-32  # in (0, 1]: no log of zero
    angle = (words & np.uint64(0xFFFFFFFF)).astype(np.float64) * (2.0 * np.pi * 2.0**-32)
    out[:] = np.sqrt(-2.0 * np.log(radius)) * np.cos(angle)


def law(argument: str | None) -> Law:
    """Standard normal; takes no argument."""
    if argument is not None:
        raise ConfigError(f"noise 'gaussian' takes no argument, found {argument!r}")
    return Law(_draw, portable=False)
