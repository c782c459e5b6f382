"""The blocks before all that moves: every forward pass of a step finds the same there, so they run once for a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from forq.coordinates.leaf import Leaf
from forq.layers.linear import QuantLinear
from forq.models.blocks import block_of


class Prefix:
    """The first blocks of a network, none of which moves.

    The first forward pass on a batch runs them, and its result is given to all later passes with the same inputs. The
    bits are those of running them again. What is kept is one block's output for the batch.

    Args:
        network: the module whose inputs decide what the blocks compute.
        blocks: its first blocks, in their order. Each takes the hidden states first and returns them alone.
    """

    def __init__(self, network: nn.Module, blocks: Sequence[nn.Module]) -> None:
        self._network, self._blocks = network, blocks
        self._batch: object = None
        self._kept: list[tuple[Mapping[str, Any], Tensor]] = []
        self._inputs: Mapping[str, Any] | None = None
        self._found: Tensor | None = None

    @contextmanager
    def once_for(self, batch: object) -> Iterator[None]:
        """Inside the block forward passes share what they have computed for this very batch."""
        if batch is not self._batch:
            self._batch, self._kept = batch, []
        hook = self._network.register_forward_pre_hook(self._begin, with_kwargs=True)
        own = [vars(block).get("forward") for block in self._blocks]
        for block in self._blocks:
            block.forward = self._in_place_of(block.forward, last=block is self._blocks[-1])
        try:
            yield
        finally:
            hook.remove()
            for block, forward in zip(self._blocks, own, strict=True):
                del block.forward
                if forward is not None:
                    block.forward = forward

    def _begin(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._inputs, self._found = None, None
        if kwargs.get("use_cache") is not False:  # the blocks fill a cache of keys and values
            return
        given = self._inputs = {**{str(place): value for place, value in enumerate(args)}, **kwargs}
        self._found = next((out for inputs, out in self._kept if _same(inputs, given)), None)

    def _in_place_of(self, forward: Callable[..., Any], *, last: bool) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if self._found is not None:  # blocks before the last pass on what they are given, which nobody reads
                return self._found.clone() if last else next(iter((*args, *kwargs.values())))
            out = forward(*args, **kwargs)
            if last and self._inputs is not None and isinstance(out, Tensor):
                self._kept.append((self._inputs, out.clone()))  # blocks behind may write into what they are given
            return out

        return run


def prefix_of(model: nn.Module, leaves: Sequence[Leaf]) -> Prefix | None:
    """The blocks before the first one in which a leaf moves; None where there are none, or they cannot be told.

    A model of transformers has them in one list. Models that train, as those with dropout do, compute no block twice
    alike.
    """
    numbers = [block_of(leaf.name) for leaf in leaves]
    network, count = getattr(model, "base_model", None), getattr(getattr(model, "config", None), "num_hidden_layers", 0)
    if None in numbers or not isinstance(network, nn.Module) or model.training:
        return None
    first = min(number for number in numbers if number is not None)
    lists = [part for part in network.modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    if not first or len(lists) != 1:
        return None
    blocks = list(lists[0])[:first]
    moving = {leaf.name for leaf in leaves}
    layers = [part for block in blocks for part in block.modules() if isinstance(part, QuantLinear)]
    if any(spec.name in moving for layer in layers for spec in layer.specs):  # the file numbers its blocks otherwise
        return None
    return Prefix(network, blocks)


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether inputs are equal; objects other than tensors and plain values equal nothing."""
    return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    plain = (bool, int, float, str, type(None))
    return isinstance(one, plain) and isinstance(other, plain) and one == other
