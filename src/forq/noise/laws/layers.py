"""One random number for each layer, which makes all its weights larger or smaller together.

Where few rows show little of the gradient, few coordinates learn more. A layer's strength is one of a hundred numbers,
and holds far more than its share of what tells classes apart (docs/learning.md, "Few coordinates").
"""

from __future__ import annotations

import numpy as np
import torch

from forq.noise.bits import Bits, Drawn
from forq.noise.law import Law, over


def law(argument: str | None) -> Law:
    """z_i = z′_0 for the law z′ named after the colon, as ``layers:rademacher``.

    In a run the scales of a layer share z, so that scale and minimum move as one factor.
    """
    return over("layers", argument, "the law that its layers draw from, as 'layers:rademacher'", _law)


def _law(inner: Law) -> Law:
    def draw(bits: Bits, start: int, out: Drawn) -> None:
        one = np.empty(1, dtype=np.float32)
        inner.draw(bits, 0, one)
        out[:] = one[0]

    def draw_on(bits: Bits, start: int, count: int, device: torch.device) -> torch.Tensor:
        assert inner.on is not None
        return inner.on(bits, 0, 1, device).expand(count).clone()

    return Law(draw, inner.portable, on=None if inner.on is None else draw_on, of_layer=True)
