"""One random number for each output row of a layer: all scales of a row move together.

At group size 64 and 512 inputs these are an eighth of the dimensions, and hold about twice their share of the
gradient's energy; see `LOG.md`. Mixed with plain directions they speed up the first thousands of forwards.
"""

from __future__ import annotations

import numpy as np
import torch

from forq.noise.bits import Bits, Drawn
from forq.noise.law import Law, over


def law(argument: str | None) -> Law:
    """z_i = z′_{row(i)} for the law z′ named after the colon, as ``rows:rademacher``."""
    return over("rows", argument, "the law that its rows draw from, as 'rows:rademacher'", _law)


def _law(inner: Law) -> Law:
    def draw(bits: Bits, start: int, out: Drawn) -> None:
        stride, count = bits.rows
        if stride == 1 and start + len(out) <= count:  # a row for every coordinate
            inner.draw(bits, start, out)
            return
        by_row = np.empty(count, dtype=np.float32)
        inner.draw(bits, 0, by_row)
        np.take(by_row, np.arange(start, start + len(out)) // stride % count, out=out, mode="clip")

    def draw_on(bits: Bits, start: int, count: int, device: torch.device) -> torch.Tensor:
        assert inner.on is not None
        stride, rows = bits.rows
        if stride == 1 and start + count <= rows:
            return inner.on(bits, start, count, device)
        place = torch.arange(start, start + count, device=device)
        return inner.on(bits, 0, rows, device)[place // stride % rows]

    on = None if inner.on is None else draw_on
    return Law(draw, inner.portable, on=on, signs="row" if inner.signs == "own" else None)
