"""Uniform on the integers −m … m, so that a probe stays on the quantization grid (ZOQO)."""

from __future__ import annotations

import numpy as np
import torch

from forq.errors import ConfigError
from forq.noise.bits import Bits, Drawn
from forq.noise.law import Law


def law(argument: str | None) -> Law:
    """Uniform on {−m, …, m}, with m given as ``uniform_grid:m``; 1 ≤ m ≤ 32767.

    The draw is ⌊r·(2m+1) / 2³²⌋ − m of a 32-bit r: off uniform by at most (2m+1)/2³².
    """
    radius = int(argument) if argument is not None and argument.isdecimal() else 0
    if not 1 <= radius <= 32767:
        raise ConfigError(
            f"noise 'uniform_grid' takes a whole radius 1 … 32767, as 'uniform_grid:3', found {argument!r}"
        )
    span = np.uint64(2 * radius + 1)

    def draw(bits: Bits, start: int, out: Drawn) -> None:
        cell = bits.uniform32(start, len(out)).astype(np.uint64) * span >> np.uint64(32)
        out[:] = cell.astype(np.int64) - radius

    def draw_on(bits: Bits, start: int, count: int, device: torch.device) -> torch.Tensor:
        from forq.noise import triton as philox

        drawn = philox.uniform32(bits, start, count, device).to(torch.int64) & (1 << 32) - 1
        return ((drawn * int(span) >> 32) - radius).float()

    return Law(draw, portable=True, integer=True, on=draw_on)
