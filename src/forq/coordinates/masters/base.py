"""Master: what every kind of master shares, the arithmetic of a move over the coordinates of one leaf."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from forq.checkpoints import Rows
from forq.coordinates.arithmetic import fitting, inside, stored
from forq.coordinates.directions import LeafDirections, NoiseBuffer
from forq.coordinates.domain import Domains
from forq.coordinates.leaf import Leaf, Shared
from forq.coordinates.steps import Step, float_step
from forq.errors import ConfigError, JournalError
from forq.noise.bits import leaf_id
from forq.scalars.moves import Move, Moved

# Coordinates computed at a time. On a CPU the buffers stay in the cache, and are small beside any model; on a GPU
# launches cost more than passes over memory.
_CHUNK = 1 << 16
_CHUNK_ELSEWHERE = 1 << 24


class Master(ABC):
    """The coordinates of one leaf. Moves change them; the model sees them through the leaf.

    Attributes:
        leaf: what shows them to the model.
        tensor: the coordinates as they are kept; a snapshot holds it.
        domain: where they may go.
        shape: of the coordinates.
        chunk: coordinates computed at a time.
        directions: the leaf's noise.
        shared: how the leaf shares its noise with the other scales of its layer, see :meth:`share`; else None.
    """

    leaf: Leaf
    shared: Shared | None = None

    def __init__(
        self,
        leaf: Leaf,
        tensor: Tensor,
        shape: tuple[int, ...],
        domain: Domains,
        buffer: NoiseBuffer,
        chunk: int | None,
    ) -> None:
        self.leaf, self.tensor, self.shape = leaf, tensor, shape
        self.domain = domain(leaf, tensor)
        self.chunk = chunk or (_CHUNK if tensor.device.type == "cpu" else _CHUNK_ELSEWHERE)
        axis = leaf.out_axis
        # Where all outputs share a leaf each coordinate is a row of its own.
        rows = (1, self.size) if axis < 0 else (math.prod(shape[axis + 1 :]), shape[axis])
        self.directions = LeafDirections(leaf.group, leaf_id(leaf.name), rows, tensor.device, buffer)

    def share(self, shared: Shared) -> None:
        """Draw the leaf's noise by a key that all scales of its layer share, so that they move together.

        Then its layer can show a probe by row.

        Raises:
            ConfigError: the leaf does not consist of such runs.
        """
        self.shared = shared
        stride, count = self.directions.rows
        if shared.run < 1 or count % shared.run:
            raise ConfigError(f"{self.leaf.name}: expected runs of {shared.run} coordinates, found {count} in all")
        rows = (stride * shared.run, count // shared.run)
        self.directions = replace(self.directions, key=leaf_id(shared.key), rows=rows, multiplied=True)

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return math.prod(self.shape)

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Ranges (start, stop) that cover the coordinates, in order."""
        for start in range(0, self.size, self.chunk):
            yield start, min(start + self.chunk, self.size)

    def touched_by(self, move: Move) -> bool:
        """Whether a term of the move touches the leaf."""
        return bool(self.directions.mine(move.terms))

    @abstractmethod
    def show(self, move: Move) -> None:
        """Let the model see the coordinates with a move added; the master stays."""

    @abstractmethod
    def hide(self) -> None:
        """Let the model see the master again: a copy of it, nothing is subtracted."""

    @abstractmethod
    def show_export(self) -> None:
        """Let the model see the coordinates as the checkpoint's file will hold them."""

    @abstractmethod
    def take(self, start: int, stop: int) -> Tensor:
        """Coordinates ``start … stop − 1`` as they are kept; perhaps a view."""

    @abstractmethod
    def put(self, start: int, x: Tensor) -> None:
        """Store coordinates from ``start`` on."""

    @abstractmethod
    def updated(self) -> None:
        """Let the model see a master that has changed."""

    def step(self, move: Move, start: int, stop: int) -> Step:
        """What a move adds to coordinates ``start … stop − 1``, before bounds."""
        return float_step(self.leaf.name, self.directions, self.domain, move, start, stop)

    def apply(self, move: Move) -> Moved:
        """Move the master, and let the model see it."""
        changed = cut = rounded_away = 0
        for start, stop in self.chunks():
            here = self.take(start, stop)
            old = _computed(here)
            step = self.step(move, start, stop)
            free = old + fitting(step.x, old, self.domain)
            new = inside(free, old, self.domain)
            cut += int(torch.count_nonzero(new != free))
            kept = new.to(here.dtype)
            changed += int(torch.count_nonzero(kept != here))
            rounded_away += step.rounded_away
            if here.is_floating_point() and here.dtype != torch.float32:
                rounded_away += int(torch.count_nonzero((free != old) & (new == free) & (kept == here)))
            self.put(start, kept)
        self.updated()
        return Moved(changed, cut, self.size, rounded_away)

    def fill(self, move: Move, out: Tensor, start: int = 0) -> None:
        """Write coordinates from ``start`` on, as many as ``out`` holds, with a move added; the master stays."""
        target = out.view(-1)
        for first in range(start, start + len(target), self.chunk):
            last = min(first + self.chunk, start + len(target))
            old = _computed(self.take(first, last))
            new = old + fitting(self.step(move, first, last).x, old, self.domain)
            target[first - start : last - start] = inside(new, old, self.domain) if self.domain.bounds_probes else new

    def export(self) -> Tensor:
        """A copy of the coordinates as the checkpoint's file will hold them."""
        return stored(self.leaf, self.tensor)

    def restore(self, tensor: Rows) -> None:
        """Take a snapshot's coordinates, and let the model see them.

        Raises:
            JournalError: they have another shape.
        """
        if tensor.shape != self.tensor.shape:
            raise JournalError(f"{self.leaf.name}: the snapshot has another shape")
        start = 0
        for part in tensor.parts():
            here = self.tensor[start : start + len(part)] if tensor.shape else self.tensor
            here.copy_(part)
            start += len(here) if tensor.shape else 0
        self.updated()


def _computed(kept: Tensor) -> Tensor:
    """Coordinates as the arithmetic takes them: floats in float32, integers as they are."""
    return kept.float() if kept.is_floating_point() else kept
