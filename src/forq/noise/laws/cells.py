"""±1 at few coordinates, or ±m at all: whole numbers of any root mean square, for lattices."""

from __future__ import annotations

import numpy as np
import torch

from forq.errors import ConfigError
from forq.noise.bits import Bits, Float32
from forq.noise.law import Law
from forq.noise.law import law as resolve


def law(argument: str | None) -> Law:
    """z of root mean square ρ, given as ``cells:ρ``: ±1 with probability ρ² below 1, else ±round(ρ); ρ ≤ 32767."""
    try:
        radius = float(argument or "")
    except ValueError:
        radius = 0.0
    if not 2.0**-10 <= radius <= 32767:
        raise ConfigError(f"noise 'cells' takes a radius 2^-10 … 32767, as 'cells:0.1', found {argument!r}")
    if radius < 1.0:
        return resolve(f"sparse:{radius * radius!r}")
    base, size = resolve("rademacher"), round(radius)

    def draw(bits: Bits, start: int, out: Float32) -> None:
        base.draw(bits, start, out)
        np.multiply(out, size, out=out)

    def draw_on(bits: Bits, start: int, count: int, device: torch.device) -> torch.Tensor:
        assert base.on is not None
        return base.on(bits, start, count, device).mul_(size)

    return Law(draw, portable=True, whole=True, on=draw_on)
