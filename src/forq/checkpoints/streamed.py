"""A mapping of tensors that are computed on access, whole or some rows at a time, so that a save holds little."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

_PART_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A tensor that is made some rows at a time.

    Attributes:
        make: makes rows ``start … stop − 1``; of a tensor without dimensions, the tensor.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    make: Callable[[int, int], Tensor]

    @classmethod
    def of(cls, tensor: Tensor) -> Rows:
        """Views of a tensor."""
        return cls(
            tensor.dtype, tuple(tensor.shape), lambda start, stop: tensor[start:stop] if tensor.dim() else tensor
        )

    def parts(self) -> Iterator[Tensor]:
        """The rows in order, about four megabytes at a time."""
        count = self.shape[0] if self.shape else 1
        step = max(1, _PART_BYTES // max(1, self.dtype.itemsize * math.prod(self.shape[1:])))
        for start in range(0, count, step):
            yield self.make(start, min(start + step, count))

    def whole(self) -> Tensor:
        """The tensor."""
        return self.make(0, self.shape[0] if self.shape else 1)


class Streamed(Mapping[str, Tensor]):
    """A mapping that computes a tensor at every access and keeps none.

    Args:
        make: a function for each name that returns its tensor, or its rows.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Mapping[str, Callable[[], Tensor | Rows]]) -> None:
        self._make = dict(make)

    def __getitem__(self, name: str) -> Tensor:
        made = self._make[name]()
        return made.whole() if isinstance(made, Rows) else made

    def rows(self, name: str) -> Rows:
        """A tensor by its rows, as few at a time as it can be made in."""
        made = self._make[name]()
        return made if isinstance(made, Rows) else Rows.of(made)

    def __contains__(self, name: object) -> bool:
        return name in self._make

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)


def rows_of(tensors: Mapping[str, Tensor], name: str) -> Rows:
    """A tensor of any mapping by its rows."""
    return tensors.rows(name) if isinstance(tensors, Streamed) else Rows.of(tensors[name])
