"""A leaf that is just a tensor, for tests of everything above leaves."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Toy:
    """An eager leaf over a float32 tensor; ``dtype`` is what its file would store."""

    name: str
    x: Tensor
    group: str = "scales"
    dtype: torch.dtype = torch.float16
    out_axis: int = 0

    def read(self) -> Tensor:
        return self.x.clone()

    def write(self, x: Tensor) -> None:
        self.x.copy_(x)


class Overlaid(Toy):
    """A lazy leaf: the tensor is never displaced in storage, its reader asks for the displaced value."""

    overlay = None

    @property
    def storage(self) -> Tensor:
        return self.x

    def shown(self) -> Tensor:
        out = self.x.clone()
        if self.overlay is not None:
            self.overlay(out)
        return out
