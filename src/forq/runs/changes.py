"""What a run changed in its checkpoint, tensor by tensor, and what rounding to the file's dtype took back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from forq.coordinates.leaf import LatticeLeaf, Leaf, PackedLeaf
from forq.coordinates.space import stored

_CHUNK = 1 << 20
"""Coordinates compared at once: a float64 copy of an embedding would be larger than the model."""


def rounding_error(leaves: Iterable[Leaf], masters: Mapping[str, Tensor]) -> float:
    """Norm of what rounding to the file's dtype changes, as a share of the norm of all that is rounded.

    Integers are stored as they are, and do not count.
    """
    off = whole = 0.0
    for leaf in leaves:
        if isinstance(leaf, LatticeLeaf | PackedLeaf):
            continue
        exact = masters[leaf.name]
        rounded = stored(leaf, exact).reshape(-1)
        exact = exact.reshape(-1)
        for start in range(0, len(exact), _CHUNK):
            x = exact[start : start + _CHUNK].double()
            whole += float(x.square().sum())
            off += float(x.sub_(rounded[start : start + _CHUNK].double()).square_().sum())
    return math.sqrt(off / whole) if whole else 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """What a run changed in one tensor of the file: a row of moved.json.

    Attributes:
        total, changed: coordinates, or words of packed integers, and those that differ from the base.
        norm, moved: norms of the base and of the difference; packed integers have none.
        flipped: coordinates that changed their sign; ``None`` of packed integers.
    """

    name: str
    group: str
    total: int
    changed: int
    norm: float | None
    moved: float | None
    flipped: int | None


def changes(leaves: Iterable[Leaf], base: Callable[[str], Tensor], saved: Mapping[str, Tensor]) -> list[Change]:
    """What a run changed, tensor by tensor.

    Args:
        base: reads a tensor of the checkpoint the run began from.
        saved: the tensors a save writes, in the file's dtypes.
    """
    rows = []
    for leaf in leaves:
        # In this order: a tensor that is packed to be saved takes twice its size while it is made.
        new = saved[leaf.name].cpu().reshape(-1)
        old = base(leaf.name).reshape(-1)
        changed, flipped, norm, moved = 0, 0, 0.0, 0.0
        for start in range(0, old.numel(), _CHUNK):
            was, now = old[start : start + _CHUNK], new[start : start + _CHUNK]
            changed += int((was != now).sum())
            if not old.is_floating_point():
                continue
            x, y = was.double(), now.double()
            flipped += int((x * y < 0).sum())
            norm += float(x.square().sum())
            moved += float((y - x).square().sum())
        told = (math.sqrt(norm), math.sqrt(moved), flipped) if old.is_floating_point() else (None, None, None)
        rows.append(Change(leaf.name, leaf.group, old.numel(), changed, *told))
    return rows
