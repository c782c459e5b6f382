"""What all matrices in GGUF's blocks share: their sizes, and moving or picking their rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from forq.checkpoints.containers.gguf.kinds import Kind


@dataclass(frozen=True, slots=True, eq=False)
class InBlocks:
    """A matrix in blocks of one type; what is continuous is handed in where it is computed.

    Attributes:
        kind: the type.
        codes: uint8 (out, blocks, bytes), as the file packs them.
        factors: (out, blocks, bytes), what the file keeps of the blocks' factors as integers, or None.
    """

    kind: Kind
    codes: Tensor
    factors: Tensor | None

    @property
    def out_features(self) -> int:
        return len(self.codes)

    @property
    def in_features(self) -> int:
        return int(self.codes.shape[1]) * self.kind.size

    @property
    def bits(self) -> int:
        return self.kind.bits

    @property
    def group_size(self) -> int:
        return self.kind.size

    def to(self, device: torch.device) -> Self:
        return self._each(lambda tensor: tensor.to(device))

    def at(self, rows: Tensor) -> Self:
        """Some rows, int64 (n,), of the matrix."""
        return self._each(lambda tensor: tensor.index_select(0, rows))

    def _each(self, turn: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, codes=turn(self.codes), factors=None if self.factors is None else turn(self.factors))
