"""LazyMaster: a large float tensor that is its own master, and is displaced only in the buffer of a forward."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from forq.coordinates.arithmetic import stored
from forq.coordinates.directions import NoiseBuffer
from forq.coordinates.domain import Domains
from forq.coordinates.leaf import LazyLeaf
from forq.coordinates.masters.base import Master
from forq.scalars.moves import Move


class LazyMaster(Master):
    """The storage that the model reads. A probe is a function that the layer's forward calls with its buffer."""

    leaf: LazyLeaf

    def __init__(self, leaf: LazyLeaf, domain: Domains, buffer: NoiseBuffer, chunk: int | None) -> None:
        super().__init__(leaf, leaf.storage, tuple(leaf.storage.shape), domain, buffer, chunk)

    def show(self, move: Move) -> None:
        self.leaf.overlay = partial(self.fill, move)

    def hide(self) -> None:
        self.leaf.overlay = None

    def updated(self) -> None:
        """Does nothing: the model reads the master itself."""

    def show_export(self) -> None:
        self.leaf.overlay = self._fill_export

    def take(self, start: int, stop: int) -> Tensor:
        return self.tensor.view(-1)[start:stop]

    def put(self, start: int, x: Tensor) -> None:
        self.tensor.view(-1)[start : start + len(x)].copy_(x)

    def _fill_export(self, out: Tensor, start: int = 0) -> None:
        out.view(-1).copy_(stored(self.leaf, self.tensor).view(-1)[start : start + out.numel()])
