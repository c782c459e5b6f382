"""Laws of noise: what a noise name means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from forq.errors import ConfigError
from forq.plugins import registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor
from forq.noise.bits import Bits, Float32

Draw = Callable[[Bits, int, Float32], None]
"""Fill ``out`` with z[start … start + len(out) − 1]; a pure function of the bits."""


@dataclass(frozen=True, slots=True)
class Law:
    """A law of z.

    Attributes:
        portable: every machine draws the same floats.
        whole: z is a whole number, and ``draw`` fills arrays of integers too.
        few: where z is 0 nearly everywhere: from (bits, start, count) to the places between start and start + count at
            which it is not, counted from start and rising, and z there; the same numbers as ``draw``'s.
        on: from (bits, start, count, device) to the same numbers again, drawn on a GPU by :mod:`forq.noise.triton`, float32.
        few_on: ``few`` there; places int64, z int8.
        signs: where z is ±1 by a bit each: whose bit it is, the coordinate's own or its output row's.
    """

    draw: Draw
    portable: bool
    whole: bool = False
    few: Callable[[Bits, int, int], tuple[NDArray[np.int64], NDArray[np.int8]]] | None = None
    on: Callable[[Bits, int, int, torch.device], Tensor] | None = None
    few_on: Callable[[Bits, int, int, torch.device], tuple[Tensor, Tensor]] | None = None
    signs: Literal["own", "row"] | None = None


@cache
def law(spec: str) -> Law:
    """The law a noise name means: ``rademacher``, ``uniform_grid:3``, ``sign:uniform_grid:3``, …

    Raises:
        ConfigError: no such law, or an argument it does not take.
    """
    head, _, argument = spec.partition(":")
    made = registry.get("noises", head).law(argument or None)
    if not isinstance(made, Law):
        raise ConfigError(f"noise {head!r}: its file must define law(argument) -> Law")
    return made
