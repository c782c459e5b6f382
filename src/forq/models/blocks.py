"""Blocks: the repeated layers of a network, and the choice of those whose leaves move."""

from __future__ import annotations

from collections.abc import Sequence

from forq.coordinates.leaf import Leaf
from forq.errors import ConfigError

ALL, MIDDLE = "all", "middle"
"""The whole model; the half of its blocks that begins after the first third."""


def block_of(name: str) -> int | None:
    """Number of the block that a tensor belongs to: the first number in its dotted name; None outside the blocks.

    >>> block_of("model.layers.11.mlp.up_proj.scales"), block_of("model.embed_tokens.weight")
    (11, None)
    """
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def within(leaves: Sequence[Leaf], blocks: str) -> list[Leaf]:
    """The leaves of some blocks; what stands outside all blocks, as an embedding does, is left out.

    Args:
        blocks: a number ``11``, a range ``10-24`` with both ends, an open one ``10-``, ``middle``, or ``all``: every
            leaf. :class:`forq.recipes.settings.Settings` checks the text.

    Raises:
        ConfigError: no leaf is left.
    """
    if blocks == ALL:
        return list(leaves)
    numbers = {leaf.name: number for leaf in leaves if (number := block_of(leaf.name)) is not None}
    count = max(numbers.values(), default=-1) + 1
    first, last = _bounds(blocks, count)
    chosen = [leaf for leaf in leaves if leaf.name in numbers and first <= numbers[leaf.name] <= last]
    if not chosen:
        has = f"blocks 0-{count - 1}" if count else "no numbered blocks"
        raise ConfigError(f"blocks {blocks}: expected blocks with something to move, found {has} in the model")
    return chosen


def _bounds(blocks: str, count: int) -> tuple[int, int]:
    if blocks == MIDDLE:
        return count // 3, max(count // 3, 5 * count // 6 - 1)
    first, dash, last = blocks.partition("-")
    return int(first), int(last or count - 1) if dash else int(first)
