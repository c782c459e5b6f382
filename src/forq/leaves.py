"""Leaf: one trainable tensor, wherever its format keeps it; Domain: where its coordinates may go."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from forq.core import ConfigError


@dataclass(frozen=True, slots=True)
class Domain:
    """Where the coordinates of a leaf live and how long a step of one unit is.

    Attributes:
        unit: coordinates per leaf unit: a number, or a tensor of the leaf's shape. A coordinate with unit 0
            never moves, which is how masks and exact zeros are said.
        low, high: bounds of every coordinate; ``None`` is no bound.
        floor: with ``keep_sign``, the smallest magnitude an update may reach.
        keep_sign: a coordinate stays on the side of zero where it started (half of the block scales of
            GGUF's Q4_0 are negative); an exact zero stays zero.
        bounds_probes: probes too are held inside the bounds; true on a grid, where nothing exists outside.
        skip_edge: a coordinate that a move or its opposite would carry out of bounds stays, so that the two sides of a
            probe are opposite everywhere. It never leaves the end of its range again.
        lattice: coordinates are whole numbers: a move of p cells is rounded to ⌊p⌋ or ⌈p⌉ at random, on average p.
    """

    unit: float | Tensor = 1.0
    low: float | None = None
    high: float | None = None
    floor: float = 0.0
    keep_sign: bool = False
    bounds_probes: bool = False
    lattice: bool = False
    skip_edge: bool = False


GROUPS = ("scales", "codes", "zeros", "offsets", "codebooks", "norms", "biases", "embeddings", "dense", "lora")
"""The kinds of leaves there are, each with a radius and a step of its own where several move."""

QUANTIZED = ("scales", "codes", "zeros", "offsets", "codebooks")
"""Those that belong to quantized layers, and are read from a file by its format."""

INTEGERS = ("codes", "zeros")
"""Those whose coordinates are always whole numbers, and move by whole cells; adapters (``lora``) may be such."""


class Leaf(Protocol):
    """One trainable tensor. The contract tests hold every implementation to these laws:

    1. retraction: ``write(read())`` changes no stored byte;
    2. projection: after any move the dtype and the bounds hold;
    3. isolation: writing one leaf changes no other storage;
    4. liveness: a displaced leaf changes the output of its layer, and the return restores it.
    """

    @property
    def name(self) -> str:
        """Name of the tensor in the checkpoint; it keys the noise, so it must never depend on the run."""

    @property
    def group(self) -> str:
        """``scales``, ``norms``, ``dense``, …: leaves that share a radius and a step."""

    @property
    def dtype(self) -> torch.dtype:
        """What the checkpoint's file stores; an export rounds to it."""

    @property
    def out_axis(self) -> int:
        """Which axis of the tensor counts the outputs of its layer: 1 for GPTQ's scales (groups, out); −1: none."""

    def read(self) -> Tensor:
        """The coordinates, as a fresh float32 tensor of the leaf's shape."""

    def write(self, x: Tensor) -> None:
        """Store coordinates in place; the storage is never re-bound."""


@runtime_checkable
class LazyLeaf(Leaf, Protocol):
    """A large float tensor, never displaced in storage: the layer's forward asks for ``storage + probe``.

    While ``overlay`` is set, the forward calls it with a buffer of the leaf's shape and uses what it fills in.
    """

    overlay: Callable[[Tensor], None] | None

    @property
    def storage(self) -> Tensor:
        """The float tensor itself: it is its own master, and updates are written into it."""


@runtime_checkable
class LatticeLeaf(Leaf, Protocol):
    """Integers that a file packs: coordinates are whole numbers in float32."""

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest number the file can hold."""

    def packed(self, x: Tensor) -> Tensor:
        """The file's tensor for these coordinates."""


@runtime_checkable
class PackedLeaf(LazyLeaf, Protocol):
    """Integers that stay packed where their layer keeps them, many coordinates to a word.

    The storage is the master. It is never displaced: a forward asks the overlay for ``codes + probe`` in the buffer it
    computes in. Ranges that are taken and put begin and end at rows.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, coordinates of a row)."""

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest number a code can be."""

    def take(self, start: int, stop: int) -> Tensor:
        """Coordinates ``start … stop − 1``: a fresh int32 tensor."""

    def put(self, start: int, x: Tensor) -> None:
        """Store coordinates from ``start`` on."""

    def packed(self, x: Tensor) -> Tensor:
        """The file's tensor for a storage."""


@dataclass(frozen=True, slots=True, eq=False)
class Few:
    """Some coordinates of a leaf.

    Attributes:
        places: int64, rising; of the coordinates laid end to end.
        x: int32, what stands there.
    """

    places: Tensor
    x: Tensor


@runtime_checkable
class StrewnLeaf(PackedLeaf, Protocol):
    """Packed integers of which single ones can be read, stored, and shown in place of what is stored."""

    few: Few | None
    """While it is set the forward computes with these in their places, and with the storage everywhere else."""

    def at(self, places: Tensor) -> Tensor:
        """The coordinates at some places: a fresh int32 tensor."""

    def put_at(self, few: Few) -> None:
        """Store some coordinates."""


def relative(leaf: Leaf, x: Tensor, floor: float = 1e-7) -> Domain:
    """One leaf unit is the coordinate's own starting magnitude, so every scale is disturbed alike.

    The unit is kept in the file's dtype, where it is exact and half the size. Coordinates keep their sign.
    """
    return Domain(unit=x.abs().to(leaf.dtype), floor=floor, keep_sign=True)


def absolute(leaf: Leaf, x: Tensor, floor: float = 1e-7) -> Domain:
    """One leaf unit is 1 whatever the coordinate's size, as the QZO paper probes; exact zeros do not move."""
    zeros = x == 0
    return Domain(unit=(~zeros).to(leaf.dtype) if bool(zeros.any()) else 1.0, floor=floor, keep_sign=True)


def free(leaf: Leaf, x: Tensor) -> Domain:
    """No bounds and unit 1: float weights, as MeZO moves them."""
    return Domain()


def spread(leaf: Leaf, x: Tensor) -> Domain:
    """One leaf unit is the tensor's root mean square, no bounds: coordinates that pass through zero, as biases do.

    Taken to the nearest power of two, so that no order of summation shows in it; of a tensor of zeros what the leaf
    says is ``typical`` of its coordinates, else a sixty-fourth.
    """
    square = float(x.double().square().mean())
    if square == 0.0:
        return Domain(unit=getattr(leaf, "typical", 2.0**-6))
    return Domain(unit=2.0 ** round(math.log2(square) / 2))


def cells(leaf: Leaf, x: Tensor) -> Domain:
    """Whole numbers within the range the leaf says its file can hold; one leaf unit is one of them."""
    if not isinstance(leaf, LatticeLeaf | PackedLeaf):
        raise ConfigError(
            f"{leaf.name}: unit 'cells' is for integers, found {leaf.dtype}; --set unit=relative, --move codes, or "
            "--bits 8 for adapters"
        )
    low, high = leaf.range
    return Domain(low=low, high=high, bounds_probes=True, lattice=True)


Unit = Literal["relative", "absolute", "free", "spread", "cells"]

Domains = Callable[[Leaf, Tensor], Domain]
"""From a leaf and its starting coordinates to where they may go."""

DOMAINS: Mapping[Unit, Domains] = {
    "relative": relative,
    "absolute": absolute,
    "free": free,
    "spread": spread,
    "cells": cells,
}
"""What a unit's name means."""


def usual_unit(group: str, unit: Unit, *, whole: bool = False) -> Unit:
    """``unit`` for the scales, ``cells`` for integers; else ``spread`` in place of ``relative``: biases pass zero."""
    if whole or group in INTEGERS:
        return "cells"
    return "spread" if unit == "relative" and group != "scales" else unit
