"""Which rows a step trains on: shuffled anew every epoch, by a pure function of (data, seed, epoch)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from forq.errors import ConfigError
from forq.noise.bits import Bits, leaf_id
from forq.scalars.moves import direction_seed


@lru_cache(maxsize=4)
def _permutation(seed: int, digest: str, epoch: int, rows: int) -> NDArray[np.int64]:
    # Sorting raw words, not Generator.permutation: NumPy keeps only the words the same between versions.
    words = Bits(direction_seed(seed, epoch), leaf_id(f"order of rows {digest}")).words(0, rows)
    return np.argsort(words, kind="stable")


def draw(rows: int, count: int, *, seed: int, digest: str) -> NDArray[np.int64]:
    """``count`` different rows out of ``rows``, in random order; a pure function of the arguments."""
    return _permutation(seed, digest, 0, rows)[:count]


def rows_of(step: int, *, rows: int, batch_rows: int, seed: int, digest: str) -> NDArray[np.int64]:
    """Rows of the batch of a step, int64 [batch_rows].

    Every row comes once per epoch; a batch may reach over the border of two epochs.

    Raises:
        ConfigError: the step is negative.
    """
    if step < 0:
        raise ConfigError(f"step must be 0 or more, found {step}")
    places = range(step * batch_rows, (step + 1) * batch_rows)
    return np.array([row_at(place, rows=rows, seed=seed, digest=digest) for place in places])


def row_at(place: int, *, rows: int, seed: int, digest: str) -> int:
    """The row at a place of all epochs in a line."""
    return int(_permutation(seed, digest, place // rows, rows)[place % rows])
