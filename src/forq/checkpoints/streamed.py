"""Tensors by name that are made when they are asked for and not kept: what a save writes, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor


class Streamed(Mapping[str, Tensor]):
    """A mapping that calls a function for every tensor it is asked for; asked twice, it calls twice.

    Args:
        make: from every name to what makes its tensor.
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
