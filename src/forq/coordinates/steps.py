"""From a move to the numbers it adds to one leaf: noise drawn and summed in the order of its terms, linked, in units.

What is drawn and in which order is the law that :mod:`forq.coordinates.space` states. A GPU draws its own noise, the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forq.coordinates.arithmetic import linked, rounded
from forq.coordinates.domain import Domain
from forq.coordinates.leaf import Few, LazyLeaf, Leaf, PackedLeaf, StrewnLeaf
from forq.devices import triton_for
from forq.errors import ConfigError, RunError
from forq.noise.bits import Bits
from forq.noise.law import law
from forq.scalars.moves import Move, Term

# Coordinates per pass: the buffers stay in the cache and small beside any model, whatever a leaf's size. On a GPU
# launches cost more than passes over memory.
_CHUNK = 1 << 16
_CHUNK_ELSEWHERE = 1 << 24


@dataclass(frozen=True, slots=True)
class Held:
    """One leaf of a space, and its master."""

    leaf: Leaf
    domain: Domain
    key: int
    master: Tensor
    lazy: LazyLeaf | None  # asked once: checking a protocol costs as much as moving a small leaf
    packed: PackedLeaf | None
    strewn: StrewnLeaf | None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.master.shape) if self.packed is None else self.packed.shape

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def rows(self) -> tuple[int, int]:
        """(stride, count), see :class:`forq.noise.bits.Bits`; where all outputs share a leaf each coordinate is a row."""
        if self.leaf.out_axis < 0:
            return 1, self.size
        shape, axis = self.shape, self.leaf.out_axis
        return math.prod(shape[axis + 1 :]), shape[axis]

    @property
    def chunk(self) -> int:
        """Coordinates per pass; whole rows of what is packed."""
        size = _CHUNK if self.master.device.type == "cpu" else _CHUNK_ELSEWHERE
        return size if self.packed is None else max(1, size // self.shape[1]) * self.shape[1]

    def chunks(self) -> Iterator[tuple[int, int]]:
        for start in range(0, self.size, self.chunk):
            yield start, min(start + self.chunk, self.size)

    def take(self, start: int, stop: int) -> Tensor:
        """Coordinates as stored; of what is packed a copy."""
        return self.master.view(-1)[start:stop] if self.packed is None else self.packed.take(start, stop)

    def put(self, start: int, x: Tensor) -> None:
        if self.packed is None:
            self.master.view(-1)[start : start + len(x)].copy_(x)
        else:
            self.packed.put(start, x)

    def mine(self, terms: Iterable[Term]) -> list[Term]:
        """The terms that touch the leaf."""
        return [term for term in terms if term.group in ("all", self.leaf.group)]


class Steps:
    """What moves add, leaf by leaf.

    Attributes:
        lost: coordinates that rounding to whole cells kept where they were, since somebody set it to 0.

    Args:
        width: coordinates of a pass at most.
    """

    def __init__(self, width: int) -> None:
        self.lost = 0
        self._noise = np.empty(width, dtype=np.float32)
        self._few: dict[int, tuple[tuple[int, str], Few]] = {}

    def step(self, one: Held, move: Move, start: int, stop: int) -> Tensor:
        """p = unit · link(Σ w·z) for coordinates ``start … stop − 1``: fresh, float32, or int32 where all is whole."""
        if one.packed is not None and _is_whole(move, one):
            return self._cells(one, move, start, stop)
        total = self._sum(one, move.terms, start, stop)
        if total is None:
            raise RunError(f"{one.leaf.name}: a move that does not touch this leaf was applied to it")
        if move.link.kind == "feedback":
            return self._fed_back(one, move, total, start, stop)
        total = linked(total, move.link, one.key, start)
        unit = one.domain.unit
        total = total.mul_(unit.view(-1)[start:stop].float() if isinstance(unit, Tensor) else unit)
        if not one.domain.lattice:
            return total
        wanted = int(torch.count_nonzero(total))
        whole = rounded(total, move.terms[0].seed, one.key, start)
        self.lost += max(wanted - int(torch.count_nonzero(whole)), 0)
        return whole

    def strewn(self, one: Held, move: Move) -> tuple[StrewnLeaf, Tensor, Tensor] | None:
        """Where a move of single cells touches a leaf of packed integers, and how far; None where it moves many.

        The two sides of a probe and the step that follows are of one direction: its places are found once.
        """
        if one.strewn is None:
            return None
        mine = one.mine(move.terms)
        draw = law(mine[0].noise).few if len(mine) == 1 else None
        if draw is None or not _is_whole(move, one):
            return None
        seed, noise, weight = mine[0].seed, mine[0].noise, int(mine[0].weight)
        held = self._few.get(one.key)
        if held is None or held[0] != (seed, noise):
            bits, found = Bits(seed, one.key, rows=one.rows), []
            for start, stop in one.chunks():
                if (draw_on := law(noise).few_on) is not None and triton_for(one.master.device.type):
                    places, z = draw_on(bits, start, stop - start, one.master.device)
                else:
                    drawn = draw(bits, start, stop - start)
                    places, z = (torch.from_numpy(part).to(one.master.device) for part in drawn)
                found.append((places + start, z))
            places, z = (torch.cat(parts) for parts in zip(*found, strict=True))
            held = self._few[one.key] = (seed, noise), Few(places, z.to(torch.int32))
        cells = held[1].x * weight
        if move.link.kind == "sign":
            cells = cells.sign_().mul_(int(move.link.size))
        return one.strewn, held[1].places, cells

    def _cells(self, one: Held, move: Move, start: int, stop: int) -> Tensor:
        """What :meth:`step` gives for whole weights of whole noise: integers throughout."""
        total = torch.zeros(stop - start, dtype=torch.int32, device=one.master.device)
        for term in one.mine(move.terms):
            total.add_(self._drawn(one, term, np.empty(stop - start, np.int32), start), alpha=int(term.weight))
        return total.sign_().mul_(int(move.link.size)) if move.link.kind == "sign" else total

    def _sum(self, one: Held, terms: Iterable[Term], start: int, stop: int) -> Tensor | None:
        """Σ w·z of the terms that touch a leaf, fresh, or None."""
        total: Tensor | None = None
        mine = one.mine(terms)
        if mine and triton_for(one.master.device.type) and all(law(term.noise).signs for term in mine):
            from forq.noise import triton as philox

            signs = tuple((term.seed, term.weight, law(term.noise).signs == "row") for term in mine)
            bits = Bits(0, one.key, rows=one.rows)
            return philox.sum_of_signs(signs, bits, start, stop - start, one.master.device)
        for term in mine:
            drawn = self._drawn(one, term, self._noise[: stop - start], start) * term.weight
            total = drawn if total is None else total.add_(drawn)
        return total

    def _drawn(self, one: Held, term: Term, buffer: NDArray[Any], start: int) -> Tensor:
        """z of one term from coordinate ``start`` on, in a buffer's length and dtype; it may be the buffer."""
        bits, of, device = Bits(term.seed, one.key, rows=one.rows), law(term.noise), one.master.device
        if of.on is not None and triton_for(device.type):
            z = of.on(bits, start, len(buffer), device)
            return z if buffer.dtype == np.float32 else z.to(torch.int32)
        of.draw(bits, start, buffer)
        return torch.from_numpy(buffer).to(device)

    def _fed_back(self, one: Held, move: Move, total: Tensor, start: int, stop: int) -> Tensor:
        """round(unit·s + γ·e), with e re-derived from zero over the moves before: no residual is stored."""
        if not one.domain.lattice:
            raise ConfigError(
                f"{one.leaf.name}: rule.feedback carries what rounding to whole cells leaves; take integers"
            )
        unit = one.domain.unit
        cells = unit.view(-1)[start:stop].float() if isinstance(unit, Tensor) else unit
        left = torch.zeros_like(total)
        for terms in move.link.past:
            wanted = self._sum(one, terms, start, stop)
            left = left.mul_(move.link.size)
            left = left if wanted is None else left.add_(wanted.mul_(cells))
            left = left.sub_(left.round())
        total = total.mul_(cells).add_(left.mul_(move.link.size))
        whole = total.round()
        self.lost += int(torch.count_nonzero(total)) - int(torch.count_nonzero(whole))
        return whole


def _is_whole(move: Move, one: Held) -> bool:
    """Whether a move of packed integers takes no floating point at all: then the same numbers, without one."""
    mine = one.mine(move.terms)
    size = move.link.size if move.link.kind == "sign" else 1.0
    whole = (
        move.link.kind in ("identity", "sign")
        and all(term.weight.is_integer() and law(term.noise).whole for term in mine)
        and float(size).is_integer()
    )
    return whole and isinstance(one.domain.unit, float) and one.domain.unit == 1.0
