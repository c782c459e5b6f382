"""The signs of another law's noise, drawn from the same bits: steps after probes on a grid (ZOQO)."""

from __future__ import annotations

import numpy as np
import torch

from forq.noise.bits import Bits, Drawn
from forq.noise.law import Law, over


def law(argument: str | None) -> Law:
    """Elementwise sign of the law named after the colon, as ``sign:uniform_grid:3``; sgn(0) = 0."""
    return over("sign", argument, "the law whose sign it is, as 'sign:uniform_grid:3'", _law)


def _law(inner: Law) -> Law:
    def draw(bits: Bits, start: int, out: Drawn) -> None:
        inner.draw(bits, start, out)
        np.sign(out, out=out)

    def draw_on(bits: Bits, start: int, count: int, device: torch.device) -> torch.Tensor:
        assert inner.on is not None
        return inner.on(bits, start, count, device).sign_()

    return Law(draw, inner.portable, inner.integer, on=None if inner.on is None else draw_on)
