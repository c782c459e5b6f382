"""Directions of one leaf: the terms of a move, drawn and summed for any range of the leaf's coordinates.

What is drawn and in which order is the law that :mod:`forq.coordinates.space` states. A GPU draws the same bits itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from forq.coordinates.leaf import SparseCodes
from forq.devices import triton_for
from forq.noise.bits import Bits, Drawn, Float32
from forq.noise.law import law
from forq.scalars.moves import OUTPUTS, Term


class NoiseBuffer:
    """One array that all leaves of a space draw their noise into; it grows to the largest request."""

    __slots__ = ("_array",)

    def __init__(self) -> None:
        self._array: Float32 = np.empty(0, dtype=np.float32)

    def take(self, count: int) -> Float32:
        """``count`` numbers, uninitialised; the next call overwrites them."""
        if len(self._array) < count:
            self._array = np.empty(count, dtype=np.float32)
        return self._array[:count]


@dataclass(frozen=True, slots=True)
class LeafDirections:
    """Draws directions for the coordinates of one leaf.

    Attributes:
        group: group of the leaf; terms of other groups do not touch it.
        key: leaf id, see :func:`forq.noise.bits.leaf_id`.
        rows: (stride, count) of the output rows, see :class:`forq.noise.bits.Bits`.
        device: where the coordinates are.
        buffer: shared with the other leaves of the space.
        multiplied: whether the layer of the leaf can multiply its outputs, so that terms of
            :data:`forq.scalars.moves.OUTPUTS` touch the leaf.
    """

    group: str
    key: int
    rows: tuple[int, int]
    device: torch.device
    buffer: NoiseBuffer
    multiplied: bool = False

    def mine(self, terms: Iterable[Term]) -> list[Term]:
        """The terms that touch the leaf."""
        groups = ("all", self.group, OUTPUTS) if self.multiplied else ("all", self.group)
        return [term for term in terms if term.group in groups]

    def sum(self, terms: Iterable[Term], start: int, stop: int) -> Tensor | None:
        """Σ w·z of the terms that touch the leaf, a fresh float32 tensor; None where none does."""
        mine = self.mine(terms)
        apart = next((place for place, term in enumerate(mine) if term.group != OUTPUTS), len(mine))
        total = self._sum_of_rows(mine[:apart], start, stop) if apart else None
        mine = mine[apart:]
        if mine and total is None and triton_for(self.device.type) and all(law(term.noise).signs for term in mine):
            from forq.noise import triton as philox

            signs = tuple((term.seed, term.weight, law(term.noise).signs == "row") for term in mine)
            return philox.sum_of_signs(signs, self._bits(0), start, stop - start, self.device)
        for term in mine:
            drawn = self._draw(term, self.buffer.take(stop - start), start) * term.weight
            total = drawn if total is None else total.add_(drawn)
        return total

    def factors(self, term: Term, rows: Sequence[int]) -> Tensor:
        """1 + w·z of a term by row, for the outputs of a layer: float32 (rows, outputs).

        Args:
            rows: numbers of rows of the batch, rising.
        """
        z = self._of_rows(term, rows[0], rows[-1] + 1)[[row - rows[0] for row in rows]]
        return 1.0 + term.weight * torch.from_numpy(z).to(self.device)

    def _sum_of_rows(self, terms: Sequence[Term], start: int, stop: int) -> Tensor:
        """:meth:`sum` of terms of rows' own directions: summed by output, then spread.

        These are the same operations on the same numbers as one term after the other.
        """
        stride, count = self.rows
        first, last = start // stride, (stop - 1) // stride + 1
        if last > count:  # the outputs begin anew within the range, as where groups come before outputs
            first, last = 0, count
        total: Float32 | None = None
        for _, same in groupby(terms, lambda term: term.seed):
            some = list(same)
            low, high = min(term.row for term in some), max(term.row for term in some) + 1
            z = self._of_rows(some[0], low, high) if last - first == count else None
            for term in some:
                own = self._of_row(term, first, last) if z is None else z[term.row - low]
                drawn = own * np.float32(term.weight)
                total = drawn if total is None else total + drawn
        assert total is not None
        places = np.arange(start, stop) // stride % count - first
        return torch.from_numpy(total[places]).to(self.device)

    def _of_rows(self, term: Term, low: int, high: int) -> Float32:
        """z of rows ``low … high − 1`` of the batch in a term's sequence: (rows, outputs)."""
        count = self.rows[1]
        out = np.empty((high - low) * count, dtype=np.float32)
        law(term.noise).draw(self._bits(term.seed), low * count, out)
        return out.reshape(-1, count)

    def _of_row(self, term: Term, first: int, last: int) -> Float32:
        """z of outputs ``first … last − 1`` of a term's row."""
        out = np.empty(last - first, dtype=np.float32)
        law(term.noise).draw(self._bits(term.seed), term.row * self.rows[1] + first, out)
        return out

    def integer_sum(self, terms: Iterable[Term], start: int, stop: int) -> Tensor:
        """:meth:`sum` for integer weights of integer noise: a fresh int32 tensor, no float on the way."""
        total = torch.zeros(stop - start, dtype=torch.int32, device=self.device)
        for term in self.mine(terms):
            total.add_(self._draw(term, np.empty(stop - start, np.int32), start), alpha=int(term.weight))
        return total

    def sparse(self, term: Term, chunks: Iterable[tuple[int, int]]) -> SparseCodes:
        """z of a term whose law is sparse: the places where z is not 0, and z there.

        Args:
            chunks: ranges that cover the leaf, in order.
        """
        own, bits, pieces = law(term.noise), self._bits(term.seed), []
        assert own.sparse is not None
        for start, stop in chunks:
            if own.sparse_on is not None and triton_for(self.device.type):
                places, z = own.sparse_on(bits, start, stop - start, self.device)
            else:
                drawn = own.sparse(bits, start, stop - start)
                places, z = (torch.from_numpy(part).to(self.device) for part in drawn)
            pieces.append((places + start, z))
        places, z = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        return SparseCodes(places, z.to(torch.int32))

    def _draw(self, term: Term, buffer: Drawn, start: int) -> Tensor:
        """z of one term from coordinate ``start`` on, in the buffer's length and dtype; it may be the buffer."""
        own, bits = law(term.noise), self._bits(term.seed)
        if own.on is not None and triton_for(self.device.type):
            z = own.on(bits, start, len(buffer), self.device)
            return z if buffer.dtype == np.float32 else z.to(torch.int32)
        own.draw(bits, start, buffer)
        return torch.from_numpy(buffer).to(self.device)

    def _bits(self, seed: int) -> Bits:
        return Bits(seed, self.key, rows=self.rows)
