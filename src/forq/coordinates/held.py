"""Directions that are 0 nearly everywhere, held from step to step: feedback adds up those of many earlier steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forq.coordinates.directions import LeafDirections
from forq.noise.law import law
from forq.scalars.moves import Term

Held = tuple[NDArray[np.uint32], NDArray[np.int8]]
"""Places, rising, and the numbers there: five bytes each."""

MOST = 1.0
"""Bytes held for a coordinate, at most."""


@dataclass(frozen=True)
class HeldDirections(LeafDirections):
    """Directions of one leaf, some of which are held: summed at their places, the numbers are those that are drawn.

    Attributes:
        held: by seed and noise.
    """

    held: dict[tuple[int, str], Held] = field(default_factory=dict)

    def hold(self, terms: Iterable[Term], chunks: Iterable[tuple[int, int]]) -> None:
        """Hold the directions of terms in place of those held so far; none where they take too much, or on a GPU.

        Args:
            chunks: ranges that cover the leaf, in order.
        """
        ranges, mine = list(chunks), {(term.seed, term.noise): term for term in self.mine(terms)}
        for direction in self.held.keys() - mine.keys():
            del self.held[direction]
        size = ranges[-1][1]
        if self.device.type != "cpu" or size >= 1 << 32 or any(law(noise).sparse is None for _, noise in mine):
            return
        for direction, term in mine.items():
            if direction not in self.held:
                drawn = self.sparse(term, ranges)
                self.held[direction] = drawn.places.numpy().astype(np.uint32), drawn.x.numpy().astype(np.int8)
            if 5 * sum(len(places) for places, _ in self.held.values()) > MOST * size:
                self.held.clear()
                return

    def sum(self, terms: Iterable[Term], start: int, stop: int) -> Tensor | None:
        """See :meth:`LeafDirections.sum`."""
        mine = self.mine(terms)
        if not mine or any((term.seed, term.noise) not in self.held for term in mine):
            return super().sum(mine, start, stop)
        total, ends = np.zeros(stop - start, dtype=np.float32), np.array((start, stop), dtype=np.uint32)
        for term in mine:
            places, z = self.held[term.seed, term.noise]
            first, last = np.searchsorted(places, ends)
            total[places[first:last] - np.uint32(start)] += z[first:last] * np.float32(term.weight)
        return torch.from_numpy(total)
