"""A mapping of tensors that are computed on access, so that a save holds one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor


class Streamed(Mapping[str, Tensor]):
    """A mapping that computes a tensor at every access and keeps none.

    Args:
        make: a function for each name that returns its tensor.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Mapping[str, Callable[[], Tensor]]) -> None:
        self._make = dict(make)

    def __getitem__(self, name: str) -> Tensor:
        return self._make[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._make

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)
