"""The changes of a run in its checkpoint, tensor by tensor, and the error of rounding to the file's dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from forq.checkpoints import rows_of
from forq.coordinates.leaf import LatticeLeaf, Leaf, PackedLeaf
from forq.coordinates.space import stored

_CHUNK = 1 << 20
"""Number of coordinates compared at once; a float64 copy of a whole embedding could exceed the model's size."""


def rounding_error(leaves: Iterable[Leaf], masters: Mapping[str, Tensor]) -> float:
    """Relative error of rounding the masters to the file's dtype: norm of the error over their norm.

    Integers are stored exactly and do not count.
    """
    error = total = 0.0
    for leaf in leaves:
        if isinstance(leaf, LatticeLeaf | PackedLeaf):
            continue
        exact = masters[leaf.name]
        rounded = stored(leaf, exact).reshape(-1)
        exact = exact.reshape(-1)
        for start in range(0, len(exact), _CHUNK):
            x = exact[start : start + _CHUNK].double()
            total += float(x.square().sum())
            error += float(x.sub_(rounded[start : start + _CHUNK].double()).square_().sum())
    return math.sqrt(error / total) if total else 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """The change of a tensor of the file: a row of moved.json.

    Attributes:
        total: number of coordinates, or of words for packed integers.
        changed: number of them that differ from the base.
        norm, moved: norms of the base and of the difference; ``None`` for packed integers.
        flipped: number of coordinates that changed sign; ``None`` for packed integers.
    """

    name: str
    group: str
    total: int
    changed: int
    norm: float | None
    moved: float | None
    flipped: int | None


def changes(
    leaves: Iterable[Leaf], base: Callable[[str], Iterable[Tensor]], saved: Mapping[str, Tensor]
) -> list[Change]:
    """The changes of a run, tensor by tensor.

    Args:
        base: reads a tensor of the base checkpoint in order, flat and in parts.
        saved: the saved tensors, in the file's dtypes.
    """
    rows = []
    for leaf in leaves:
        new = rows_of(saved, leaf.name)
        total, changed, flipped, norm, moved = 0, 0, 0, 0.0, 0.0
        for was, now in _side_by_side(base(leaf.name), (part.cpu().reshape(-1) for part in new.parts())):
            total += len(was)
            changed += int((was != now).sum())
            if not was.is_floating_point():
                continue
            x, y = was.double(), now.double()
            flipped += int((x * y < 0).sum())
            norm += float(x.square().sum())
            moved += float((y - x).square().sum())
        numbers = (math.sqrt(norm), math.sqrt(moved), flipped) if new.dtype.is_floating_point else (None, None, None)
        rows.append(Change(leaf.name, leaf.group, total, changed, *numbers))
    return rows


def _side_by_side(left: Iterable[Tensor], right: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Two flat tensors of one size, each in parts of its own, in parts that match and are no larger than a chunk."""
    rest = iter(right)
    b = next(rest, torch.empty(0))
    for part in left:
        a = part
        while len(a):
            while not len(b):
                b = next(rest)
            size = min(len(a), len(b), _CHUNK)
            yield a[:size], b[:size]
            a, b = a[size:], b[size:]
