"""One number an output row, of a direction that one row of the batch has for itself."""

from __future__ import annotations

import numpy as np

from forq.errors import ConfigError
from forq.noise.bits import Bits, Drawn
from forq.noise.law import Law
from forq.noise.law import law as resolve


def law(argument: str | None) -> Law:
    """z_i = z′_{n·outputs + row(i)} for row n of the batch and the law z′, as ``own:3:rademacher``.

    So the directions of all rows of a batch lie one behind the other in one sequence.
    """
    number, _, inner_name = (argument or "").partition(":")
    if not number.isdecimal() or not inner_name:
        raise ConfigError("noise 'own' takes the row of the batch and the law it draws from, as 'own:3:rademacher'")
    row, inner = int(number), resolve(inner_name)

    def draw(bits: Bits, start: int, out: Drawn) -> None:
        stride, count = bits.rows
        by_output = np.empty(count, dtype=np.float32)
        inner.draw(bits, row * count, by_output)
        np.take(by_output, np.arange(start, start + len(out)) // stride % count, out=out, mode="clip")

    return Law(draw, inner.portable)
