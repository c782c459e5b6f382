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
    """⌊σz + r⌋ with z ~ N(0, 1) of stream 0 and r uniform of stream k, as ``rounded:k:σ``; σ is 1 by default."""
    first, _, spread = (argument or "").partition(":")
    stream = int(first) if first.isdecimal() else 0
    try:
        sigma = float(spread or 1.0)
    except ValueError:
        sigma = 0.0
    if not (1 <= stream <= 255 and 2.0**-20 <= sigma <= 2.0**10):
        raise ConfigError(
            f"noise 'rounded' takes a stream 1 … 255 and a spread, as 'rounded:1:0.1', found {argument!r}"
        )
    base = resolve("gaussian")

    def draw(bits: Bits, start: int, out: Float32) -> None:
        base.draw(bits, start, out)
        np.multiply(out, np.float32(sigma), out=out)
        carry = bits.on(stream).uniform32(start, len(out)) * 2.0**-32
        np.floor(out + carry, out=out, casting="same_kind")

    return Law(draw, base.portable)
