"""Laws of noise: from a name such as ``sparse:0.01`` to the function that draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from forq.errors import ConfigError
from forq.noise.bits import Bits, Drawn, Float32
from forq.noise.philox import Places
from forq.plugins import registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Draw = Callable[[Bits, int, Drawn], None]
"""Fill ``out`` with z[start … start + len(out) − 1]; a pure function of the bits."""

MOSTLY_ZERO = 2.0**-6
"""Up to this share of numbers that are not 0, it pays to keep their places: 12 bytes each, three sixteenths of a byte a
coordinate."""

AUTO = "auto"
"""The argument with which the calibration chooses the size of a law, as in ``cells:auto``."""


@dataclass(frozen=True, slots=True)
class Law:
    """A law of z.

    Attributes:
        portable: every machine draws the same floats.
        integer: z is an integer, and ``draw`` fills arrays of integers too.
        sparse: of a law whose z is mostly 0: from (bits, start, count) to the places of the other numbers, counted
            from start and rising, and the numbers; they are those of ``draw``.
        on: from (bits, start, count, device) to the same numbers drawn on a GPU by :mod:`forq.noise.triton`, float32.
        sparse_on: ``sparse`` on a GPU; places int64, z int8.
        at: from (bits, places) to z at single places, which rise; float32, the same numbers as ``draw``'s.
        of_layer: one number for a layer, which all its scales share.
        signs: of a law of single random bits (±1): ``own``: one for each coordinate, ``row``: one for each output row.
        sized: of a law without a size (``cells:auto``), which cannot be drawn: from a root mean square to the name of
            the law of that size.
        shrunk: of a law that can become smaller during a run: from a share of its size to the name of that law.
    """

    draw: Draw
    portable: bool
    integer: bool = False
    sparse: Callable[[Bits, int, int], tuple[Places, NDArray[np.int8]]] | None = None
    on: Callable[[Bits, int, int, torch.device], Tensor] | None = None
    sparse_on: Callable[[Bits, int, int, torch.device], tuple[Tensor, Tensor]] | None = None
    at: Callable[[Bits, Places], Float32] | None = None
    of_layer: bool = False
    signs: Literal["own", "row"] | None = None
    sized: Callable[[float], str] | None = None
    shrunk: Callable[[float], str] | None = None


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


def sized(spec: str, radius: float) -> str:
    """The name of a law with this root mean square, where its size was left open; else the name itself."""
    made = law(spec)
    return spec if made.sized is None else made.sized(radius)


def shrunk(spec: str, share: float) -> str:
    """The name of a law at a share of its size, where its size can shrink; else the name itself."""
    made = law(spec)
    return spec if made.shrunk is None else made.shrunk(share)


def unsized(portable: bool, integer: bool, name: Callable[[float], str]) -> Law:
    """A law whose size is left open: it can be asked for the law of a size, and refuses to draw.

    Args:
        name: from a root mean square to the name of the law of that size.
    """

    def draw(bits: Bits, start: int, out: Drawn) -> None:
        raise ConfigError(f"noise '{name(1.0)}': its size is left to a calibration, and none has run")

    return Law(draw, portable, integer, sized=name)


def over(name: str, argument: str | None, takes: str, made: Callable[[Law], Law]) -> Law:
    """A law that draws from another, named after the colon: of one whose size is left open, the law of each size.

    Args:
        takes: what the argument is, with an example, for the message where there is none.
        made: from the other law to this one.

    Raises:
        ConfigError: there is no argument.
    """
    if argument is None:
        raise ConfigError(f"noise '{name}' takes {takes}")
    inner = law(argument)
    if (size := inner.sized) is not None:
        return unsized(inner.portable, inner.integer, lambda radius: f"{name}:{size(radius)}")
    return made(inner)
