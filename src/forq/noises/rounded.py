"""One Gaussian direction, rounded at random to whole numbers, as often as there are streams (QuZO).

QuZO (arXiv 2502.12346, section 4) probes with one quantization of a direction and steps with another,
conditionally independent one; ``rounded:1`` and ``rounded:2`` are two such quantizations of one seed.
"""

from __future__ import annotations

import numpy as np

from forq.core import ConfigError
from forq.noise import Bits, Float32, Law
from forq.noise import law as resolve


def law(argument: str | None) -> Law:
    """⌊z + r⌋ with z ~ N(0, 1) of stream 0 and r uniform in [0, 1) of stream k, given as ``rounded:k``."""
    stream = int(argument) if argument is not None and argument.isdecimal() else 0
    if not 1 <= stream <= 255:
        raise ConfigError(f"noise 'rounded' takes a stream 1 … 255, as 'rounded:1', found {argument!r}")
    base = resolve("gaussian")

    def draw(bits: Bits, start: int, out: Float32) -> None:
        base.draw(bits, start, out)
        carry = bits.on(stream).uniform32(start, len(out)) * 2.0**-32
        np.floor(out + carry, out=out, casting="same_kind")

    return Law(draw, base.portable)
