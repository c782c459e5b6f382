"""Domain: where the coordinates of a leaf may go, and how long a step of one unit is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from forq.coordinates.leaf import INTEGERS, LatticeLeaf, Leaf, PackedLeaf
from forq.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Domain:
    """Where the coordinates of a leaf may go, and how long a step of one unit is.

    Attributes:
        unit: coordinates per leaf unit: a number, or a tensor of the leaf's shape. A coordinate with unit 0
            never moves; masks and exact zeros use this.
        low, high: bounds of every coordinate; ``None``: unbounded.
        floor: with ``keep_sign``, the smallest magnitude an update may reach.
        keep_sign: a coordinate stays on the side of zero where it started (half of the block scales of
            GGUF's Q4_0 are negative); an exact zero stays zero.
        bounds_probes: probes are clamped to the bounds too; true on a grid, which has no points outside.
        skip_edge: a coordinate that a move or its opposite would carry out of bounds stays, so that the two sides of a
            probe are opposite everywhere. It never leaves the end of its range again.
        lattice: coordinates are integers: a move of p cells is rounded to ⌊p⌋ or ⌈p⌉ at random, on average p.
    """

    unit: float | Tensor = 1.0
    low: float | None = None
    high: float | None = None
    floor: float = 0.0
    keep_sign: bool = False
    bounds_probes: bool = False
    lattice: bool = False
    skip_edge: bool = False


def relative(leaf: Leaf, x: Tensor, floor: float = 1e-7) -> Domain:
    """One leaf unit is the coordinate's own starting magnitude, so that every scale is perturbed alike.

    The unit is kept in the file's dtype, where it is exact and half the size. Coordinates keep their sign.
    """
    return Domain(unit=x.abs().to(leaf.dtype), floor=floor, keep_sign=True)


def signed(leaf: Leaf, x: Tensor, floor: float = 1e-7) -> Domain:
    """One leaf unit is the coordinate's own start, sign included: a move of w multiplies it by about 1 + w.

    Where :func:`relative` moves every coordinate up, this moves it away from zero, as a factor of a layer's outputs
    does.
    """
    return Domain(unit=x.to(leaf.dtype), floor=floor, keep_sign=True)


def absolute(leaf: Leaf, x: Tensor, floor: float = 1e-7) -> Domain:
    """One leaf unit is 1 whatever the coordinate's size, as the QZO paper probes; exact zeros do not move."""
    zeros = x == 0
    return Domain(unit=(~zeros).to(leaf.dtype) if bool(zeros.any()) else 1.0, floor=floor, keep_sign=True)


def free(leaf: Leaf, x: Tensor) -> Domain:
    """No bounds and unit 1: float weights, as MeZO moves them."""
    return Domain()


def spread(leaf: Leaf, x: Tensor) -> Domain:
    """One leaf unit is the tensor's root mean square, no bounds: coordinates that pass through zero, as biases do.

    It is rounded to a power of two, so that it does not depend on the order of summation. For a tensor of zeros it is
    the leaf's ``typical`` size of a coordinate, else 1/64.
    """
    square = float(x.double().square().mean())
    if square == 0.0:
        return Domain(unit=getattr(leaf, "typical", 2.0**-6))
    return Domain(unit=2.0 ** round(math.log2(square) / 2))


def cells(leaf: Leaf, x: Tensor) -> Domain:
    """Integers within the range that the leaf's file can hold; one leaf unit is 1."""
    if not isinstance(leaf, LatticeLeaf | PackedLeaf):
        raise ConfigError(
            f"{leaf.name}: unit 'cells' is for integers, found {leaf.dtype}; --set unit=relative, --move codes, or "
            "--bits 8 for adapters"
        )
    low, high = leaf.range
    return Domain(low=low, high=high, bounds_probes=True, lattice=True)


Unit = Literal["relative", "signed", "absolute", "free", "spread", "cells"]

Domains = Callable[[Leaf, Tensor], Domain]
"""From a leaf and its starting coordinates to where they may go."""

DOMAINS: Mapping[Unit, Domains] = {
    "relative": relative,
    "signed": signed,
    "absolute": absolute,
    "free": free,
    "spread": spread,
    "cells": cells,
}
"""Domains by name of their unit."""


def usual_unit(group: str, unit: Unit, *, integer: bool = False) -> Unit:
    """The unit of a group in a run with ``unit``: ``cells`` for integers, ``unit`` itself for the scales.

    Other groups take ``spread`` in place of ``relative`` and ``signed``: biases and their like pass through zero.
    """
    if integer or group in INTEGERS:
        return "cells"
    return "spread" if unit in ("relative", "signed") and group not in ("scales", "activations") else unit
