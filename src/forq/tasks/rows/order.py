"""The rows of a training step: shuffled in each epoch, as a pure function of (data, seed, epoch).

In one sequence, all rows take part alike, and each is used once per epoch. In the balanced sequence,
the classes take turns, and each class has its own epochs. Every stretch of it, and so every batch, has
as many rows of each class, up to one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from forq.errors import ConfigError
from forq.noise.bits import Bits, leaf_id
from forq.scalars.moves import direction_seed


# Balanced batches use the permutations of all classes in turn, and of two epochs where one ends.
@lru_cache(maxsize=16)
def _permutation(seed: int, digest: str, epoch: int, rows: int) -> NDArray[np.int64]:
    # Sort random words in place of Generator.permutation, whose result may differ between NumPy versions.
    words = Bits(direction_seed(seed, epoch), leaf_id(f"order of rows {digest}")).words(0, rows)
    return np.argsort(words, kind="stable")


def draw(rows: int, count: int, *, seed: int, digest: str) -> NDArray[np.int64]:
    """``count`` different row numbers below ``rows``, in random order; a pure function of the arguments."""
    return _permutation(seed, digest, 0, rows)[:count]


def rows_of(step: int, *, rows: int, batch_rows: int, seed: int, digest: str) -> NDArray[np.int64]:
    """The row numbers of a step's batch, int64 [batch_rows].

    Each row is used once per epoch. A batch may begin in one epoch and end in the next.

    Raises:
        ConfigError: the step is negative.
    """
    places = places_of(step, batch_rows)
    return np.array([row_at(place, rows=rows, seed=seed, digest=digest) for place in places])


def places_of(step: int, batch_rows: int) -> range:
    """The places of a step's batch in the sequence of all epochs.

    Raises:
        ConfigError: the step is negative.
    """
    if step < 0:
        raise ConfigError(f"step must be 0 or more, found {step}")
    return range(step * batch_rows, (step + 1) * batch_rows)


def row_at(place: int, *, rows: int, seed: int, digest: str) -> int:
    """The row at a place in the sequence of all epochs."""
    return int(_permutation(seed, digest, place // rows, rows)[place % rows])


def of_each_class(labels: Iterable[int]) -> tuple[tuple[int, ...], ...]:
    """The row numbers of each class, in the order of the labels; a class without a row is left out.

    Example:
        >>> of_each_class([2, 0, 2])
        ((1,), (0, 2))
    """
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return tuple(tuple(rows[label]) for label in sorted(rows))


def balanced_row_at(place: int, *, classes: Sequence[Sequence[int]], seed: int, digest: str) -> int:
    """The row at a place in the balanced sequence.

    Of C classes, place p belongs to class c = p mod C. It takes the row at place p // C in the sequence
    of all epochs of that class. So every row of a class is used once in each of its epochs, and a class
    with few rows repeats them more often.

    Args:
        classes: the row numbers of each class, from :func:`of_each_class`.
    """
    turn, number = divmod(place, len(classes))
    rows = classes[number]
    return rows[row_at(turn, rows=len(rows), seed=seed, digest=f"{digest} class {number}")]
