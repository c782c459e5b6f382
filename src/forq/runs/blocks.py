"""Which blocks move, where a method leaves it open."""

from __future__ import annotations

from collections.abc import Iterable

from forq.coordinates.leaf import Leaf
from forq.models.blocks import ALL, MIDDLE, block_of
from forq.recipes.settings import Settings
from forq.tasks import Task
from forq.tasks.kinds.choice import Choice

DEEP = 12
"""Blocks of a network whose middle is told from its ends; shallower ones were not measured."""


def settled(method: Settings, leaves: Iterable[Leaf], task: Task, *, profiled: bool) -> Settings:
    """The method with ``blocks=auto`` settled: the middle half where scales of a deep language model learn classes.

    Late blocks and the head shift all rows towards one word, early ones see little of the class. Both add noise to
    every step (``docs/learning.md``, "Where to move").

    Args:
        profiled: whether a profile says what moves; then all blocks do.
    """
    if method.blocks != "auto":
        return method
    numbers = {block_of(leaf.name) for leaf in leaves} - {None}
    middle = isinstance(task, Choice) and method.kinds == ("scales",) and len(numbers) >= DEEP and not profiled
    return method.model_copy(update={"blocks": MIDDLE if middle else ALL})
