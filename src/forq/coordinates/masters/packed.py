"""PackedMaster and SparseMaster: integers that are their own masters in the packed storage of their layer."""

from __future__ import annotations

from functools import partial
from itertools import chain

import torch
from torch import Tensor

from forq.coordinates.arithmetic import fitting, inside
from forq.coordinates.directions import NoiseBuffer
from forq.coordinates.domain import Domains
from forq.coordinates.held import HeldDirections
from forq.coordinates.leaf import PackedLeaf, SparseCodes, SparseLeaf
from forq.coordinates.masters.base import Master
from forq.coordinates.steps import Step, integer_step, is_integer, is_sparse, sparse_step
from forq.scalars.moves import Move, Moved


class PackedMaster(Master):
    """Packed integers. They are taken and put in whole rows, as int32; a move without fractions stays in int32."""

    leaf: PackedLeaf

    def __init__(self, leaf: PackedLeaf, domain: Domains, buffer: NoiseBuffer, chunk: int | None) -> None:
        super().__init__(leaf, leaf.storage, leaf.shape, domain, buffer, chunk)
        columns = leaf.shape[1]
        self.chunk = max(1, self.chunk // columns) * columns

    def show(self, move: Move) -> None:
        self.leaf.overlay = partial(self.fill, move)

    def hide(self) -> None:
        self.leaf.overlay = None

    def updated(self) -> None:
        """Does nothing: the model reads the master itself."""

    def show_export(self) -> None:
        """Does nothing: the file holds what is stored."""

    def take(self, start: int, stop: int) -> Tensor:
        return self.leaf.take(start, stop)

    def put(self, start: int, x: Tensor) -> None:
        self.leaf.put(start, x)

    def step(self, move: Move, start: int, stop: int) -> Step:
        if is_integer(self.directions, self.domain, move):
            return integer_step(self.directions, move, start, stop)
        return super().step(move, start, stop)


class SparseMaster(PackedMaster):
    """Packed integers of which a move of few cells reads and stores single ones.

    The two sides of a probe and the step that follows share a direction: its places are drawn once. Those of the steps
    whose rounding a step feeds back are held (:mod:`forq.coordinates.held`).
    """

    leaf: SparseLeaf
    directions: HeldDirections

    def __init__(self, leaf: SparseLeaf, domain: Domains, buffer: NoiseBuffer, chunk: int | None) -> None:
        super().__init__(leaf, domain, buffer, chunk)
        plain = self.directions
        self.directions = HeldDirections(plain.group, plain.key, plain.rows, plain.device, plain.buffer)
        self._drawn: tuple[tuple[int, str], SparseCodes] | None = None

    def show(self, move: Move) -> None:
        if not is_sparse(self.directions, self.domain, move):
            self._drawn = None  # of another kind of step: its places would only take memory
            super().show(move)
            return
        places, step = self.sparse_step(move)
        old = self.leaf.at(places)
        new = inside(old + fitting(step.x, old, self.domain), old, self.domain)
        self.leaf.sparse = SparseCodes(places, new)

    def hide(self) -> None:
        self.leaf.sparse = None
        super().hide()

    def apply(self, move: Move) -> Moved:
        if move.link.past:
            self.directions.hold(chain(move.terms, *move.link.past), self.chunks())
        if not is_sparse(self.directions, self.domain, move):
            return super().apply(move)
        places, step = self.sparse_step(move)
        old = self.leaf.at(places)
        free = old + fitting(step.x, old, self.domain)
        new = inside(free, old, self.domain)
        changed, cut = int(torch.count_nonzero(new != old)), int(torch.count_nonzero(new != free))
        self.leaf.put_at(SparseCodes(places, new))
        return Moved(changed, cut, self.size, step.rounded_away)

    def sparse_step(self, move: Move) -> tuple[Tensor, Step]:
        """Where a sparse move touches the leaf, and by how many cells."""
        (term,) = self.directions.mine(move.terms)
        direction = term.seed, term.noise
        if self._drawn is None or self._drawn[0] != direction:
            self._drawn = direction, self.directions.sparse(term, self.chunks())
        drawn = self._drawn[1]
        return drawn.places, sparse_step(self.directions, self.domain, move, term, drawn)
