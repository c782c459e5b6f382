"""Leaf: one trainable tensor, wherever its format keeps it; Domain: where its coordinates may go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Domain:
    """Where the coordinates of a leaf live and how long a step of one unit is.

    Attributes:
        unit: coordinates per leaf unit: a number, or a tensor of the leaf's shape. A coordinate with unit 0
            never moves, which is how masks and exact zeros are said.
        low, high: bounds of every coordinate; ``None`` is no bound.
        floor: with ``keep_sign``, the smallest magnitude a coordinate may reach.
        keep_sign: a coordinate stays on the side of zero where it started (half of the block scales of
            GGUF's Q4_0 are negative).
        bounds_probes: probes too are held inside the bounds; true on a grid, where nothing exists outside.
    """

    unit: float | Tensor = 1.0
    low: float | None = None
    high: float | None = None
    floor: float = 0.0
    keep_sign: bool = False
    bounds_probes: bool = False


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

    def read(self) -> Tensor:
        """The coordinates, as a fresh float32 tensor of the leaf's shape."""

    def write(self, x: Tensor) -> None:
        """Store coordinates in place; the storage is never re-bound."""
