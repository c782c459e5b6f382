"""Integers of a given root mean square, for integer grids: ±1 at a few coordinates, or ±m at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from forq.errors import ConfigError
from forq.noise.bits import Bits, Drawn
from forq.noise.law import AUTO, Law, unsized
from forq.noise.law import law as resolve

_LEAST, _MOST = 2.0**-10, 32767.0


def law(argument: str | None) -> Law:
    """z of root mean square ρ, given as ``cells:ρ``: ±1 with probability ρ² below 1, else ±round(ρ); ρ ≤ 32767.

    ``cells:auto`` leaves ρ to the calibration.
    """
    if argument == AUTO:
        return unsized(portable=True, integer=True, name=_named)
    try:
        radius = float(argument or "")
    except ValueError:
        radius = 0.0
    if not _LEAST <= radius <= _MOST:
        raise ConfigError(f"noise 'cells' takes a radius 2^-10 … 32767, as 'cells:0.1', found {argument!r}")

    def shrunk(share: float) -> str:
        return _named(max(radius * share, _LEAST))

    if radius < 1.0:
        return replace(resolve(f"sparse:{radius * radius!r}"), shrunk=shrunk)
    base, size = resolve("rademacher"), round(radius)

    def draw(bits: Bits, start: int, out: Drawn) -> None:
        base.draw(bits, start, out)
        np.multiply(out, size, out=out)

    def draw_on(bits: Bits, start: int, count: int, device: torch.device) -> torch.Tensor:
        assert base.on is not None
        return base.on(bits, start, count, device).mul_(size)

    return Law(draw, portable=True, integer=True, on=draw_on, shrunk=shrunk)


def _named(radius: float) -> str:
    return f"cells:{radius:.4g}"
