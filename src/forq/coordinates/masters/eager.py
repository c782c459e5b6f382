"""EagerMaster: a small tensor, which a probe is written into."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor

from forq.coordinates.arithmetic import as_stored
from forq.coordinates.directions import NoiseBuffer
from forq.coordinates.domain import Domains
from forq.coordinates.leaf import Leaf, ScaleLeaf
from forq.coordinates.masters.base import Master
from forq.scalars.moves import Move


class EagerMaster(Master):
    """A float32 copy beside the storage that the model reads; probes and steps are written into the storage."""

    def __init__(self, leaf: Leaf, domain: Domains, buffer: NoiseBuffer, chunk: int | None) -> None:
        tensor = leaf.read()
        super().__init__(leaf, tensor, tuple(tensor.shape), domain, buffer, chunk)

    def show(self, move: Move) -> None:
        if move.by_row:
            cast(ScaleLeaf, self.leaf).multiply(partial(self.directions.factors, move.terms[0]))
            return
        displaced = torch.empty_like(self.tensor)
        self.fill(move, displaced)
        self.leaf.write(displaced)

    def hide(self) -> None:
        if self.directions.multiplied:
            cast(ScaleLeaf, self.leaf).multiply(None)
        self.leaf.write(self.tensor)

    def updated(self) -> None:
        self.leaf.write(self.tensor)

    def show_export(self) -> None:
        self.leaf.write(as_stored(self.leaf, self.tensor))

    def take(self, start: int, stop: int) -> Tensor:
        return self.tensor.view(-1)[start:stop]

    def put(self, start: int, x: Tensor) -> None:
        self.tensor.view(-1)[start : start + len(x)].copy_(x)
