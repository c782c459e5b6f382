"""The forward passes of one batch, shared between processes: each measures some, one puts all of them together.

A loss cuts its batch into forward passes of rows of like length (:func:`forq.tokens.batches.pieces`). A process that
measures some of them goes on with zeros in place of the others; what it makes of them is not used. With the results of
all of them, the same function gives the loss without a forward pass, and to the last bit as one process does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

Measure = Callable[[int], Tensor]
"""The token losses of a forward pass, by its number in the batch: fp32 [tokens]."""

_Way = Callable[[int, int, torch.device, Measure], Tensor]

_WAY: ContextVar[_Way | None] = ContextVar("how forward passes are shared", default=None)


def measured(tokens: Sequence[int], device: torch.device, measure: Measure) -> list[Tensor]:
    """The token losses of every forward pass of a batch: all measured here, unless they are shared.

    Args:
        tokens: number of losses of each forward pass.
    """
    way = _WAY.get()
    if way is None:
        return [measure(number) for number in range(len(tokens))]
    return [way(number, count, device, measure) for number, count in enumerate(tokens)]


@contextmanager
def some(turn: int, turns: int) -> Iterator[dict[int, Tensor]]:
    """Inside the block every ``turns``-th forward pass is measured, from number ``turn`` on; they are yielded."""
    kept: dict[int, Tensor] = {}

    def way(number: int, tokens: int, device: torch.device, measure: Measure) -> Tensor:
        if number % turns != turn:
            return torch.zeros(tokens, device=device)
        kept[number] = measure(number)
        return kept[number]

    with _by(way):
        yield kept


@contextmanager
def given(results: Mapping[int, Tensor]) -> Iterator[None]:
    """Inside the block nothing is measured: the results of all forward passes are given."""

    def way(number: int, tokens: int, device: torch.device, measure: Measure) -> Tensor:
        return results[number].to(device)

    with _by(way):
        yield


@contextmanager
def _by(way: _Way) -> Iterator[None]:
    token = _WAY.set(way)
    try:
        yield
    finally:
        _WAY.reset(token)
