"""z ~ N(0, 1), as in the papers: one 64-bit word for each coordinate, by the Box–Muller transform.

Logarithm and cosine differ in the last bit between maths libraries, so a journal made with this law replays
bit for bit only where it was made: ``portable`` is false, and the header says so.
"""

from __future__ import annotations

import numpy as np

from forq.errors import ConfigError
from forq.noise.bits import Bits, Drawn, Float32
from forq.noise.law import Law
from forq.noise.philox import Places, UInt64


def _draw(bits: Bits, start: int, out: Drawn) -> None:
    _of_words(bits.words(start, len(out)), out)


def _at(bits: Bits, places: Places) -> Float32:
    out = np.empty(len(places), dtype=np.float32)
    _of_words(bits.words_at(places), out)
    return out


def _of_words(words: UInt64, out: Drawn) -> None:
    halves = words.astype("<u8", copy=False).view("<u4") >> 8  # 24 bits are exact in float32
    radius = (halves[1::2].astype(np.float32) + np.float32(1.0)) * np.float32(2.0**-24)  # in (0, 1]: no log of zero
    angle = halves[0::2].astype(np.float32) * np.float32(2.0 * np.pi * 2.0**-24)
    # In float32 throughout: several times faster than float64, and |z| ends at 5.8 instead of 6.7.
    np.log(radius, out=radius)
    np.sqrt(np.multiply(radius, np.float32(-2.0), out=radius), out=radius)
    np.multiply(radius, np.cos(angle, out=angle), out=out)


def law(argument: str | None) -> Law:
    """Standard normal; takes no argument."""
    if argument is not None:
        raise ConfigError(f"noise 'gaussian' takes no argument, found {argument!r}")
    return Law(_draw, portable=False, at=_at)
