"""A Gaussian direction rounded at random to whole numbers; each stream rounds it independently (QuZO).

QuZO (arXiv 2502.12346, section 4) probes with one quantization of a direction and steps with another,
conditionally independent one; ``rounded:1`` and ``rounded:2`` are two such quantizations of one seed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from forq.errors import ConfigError
from forq.noise.bits import Bits, Drawn, Float32, UInt32
from forq.noise.law import AUTO, MOSTLY_ZERO, Law, unsized
from forq.noise.law import law as resolve
from forq.noise.philox import Places

# Streams 1 … 255 are the roundings' own.
_SHARE_STREAM = 256

_BYTE = 16.0
"""Largest spread whose numbers fit in a byte: a Gaussian ends at 5.8."""


def law(argument: str | None) -> Law:
    """⌊σz + r⌋ with z ~ N(0, 1) of stream 0 and r uniform of stream k, as ``rounded:k:σ``; σ is 1 by default.

    ``rounded:k:σ:p`` is that at a share p of the coordinates, 2⁻²⁰ ≤ p ≤ 1, the same ones for every k, and 0 at the
    others. A small σ moves few coordinates too, but every k others: of what one rounding probed another moves next
    to nothing.

    ``rounded:k:auto`` leaves the size to the calibration: above one cell it is σ, below it is √p. A Gaussian much
    smaller than a cell would be rounded to other coordinates by the probe than by the step.
    """
    first, spread, part = [*(argument or "").split(":"), "", ""][:3]
    stream = int(first) if first.isdecimal() else 0
    if argument == f"{stream}:{AUTO}" and 1 <= stream <= 255:
        return unsized(
            portable=resolve("gaussian").portable,
            integer=True,
            name=lambda size: f"rounded:{stream}:{size:.4g}" if size > 1.0 else f"rounded:{stream}:1:{size**2:.4g}",
        )
    try:
        sigma, share = float(spread or 1.0), float(part or 1.0)
    except ValueError:
        sigma = share = 0.0
    if not (1 <= stream <= 255 and 2.0**-20 <= sigma <= 2.0**10 and 2.0**-20 <= share <= 1.0):
        raise ConfigError(
            "noise 'rounded' takes a stream 1 … 255, a spread and a share of the coordinates, as 'rounded:1:1:0.01', "
            f"found {argument!r}"
        )
    base, bound = resolve("gaussian"), round(share * 2**32)

    def rounded(z: Float32, draws: UInt32) -> Float32:
        return np.floor(z * np.float32(sigma) + draws * 2.0**-32).astype(np.float32)

    def draw(bits: Bits, start: int, out: Drawn) -> None:
        if bound < 1 << 32:
            places, z = few(bits, start, len(out))
            out.fill(0)
            out[places] = z
            return
        z = np.empty(len(out), dtype=np.float32)
        base.draw(bits, start, z)
        out[:] = rounded(z, bits.on(stream).uniform32(start, len(out)))

    def few(bits: Bits, start: int, count: int) -> tuple[Places, Float32]:
        places = np.flatnonzero(bits.on(_SHARE_STREAM).uniform32(start, count) < np.uint32(bound))
        assert base.at is not None
        z = rounded(base.at(bits, places + start), bits.on(stream).uniform32_at(places + start))
        moved = z != 0.0
        return places[moved], z[moved]

    def sparse(bits: Bits, start: int, count: int) -> tuple[Places, NDArray[np.int8]]:
        places, z = few(bits, start, count)
        return places, z.astype(np.int8)

    fits = share <= MOSTLY_ZERO and sigma <= _BYTE
    return Law(draw, base.portable, integer=True, sparse=sparse if fits else None)
