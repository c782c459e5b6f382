"""The rows of a training step: shuffled in each epoch, as a pure function of (data, seed, epoch)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from forq.errors import ConfigError
from forq.noise.bits import Bits, leaf_id
from forq.scalars.moves import direction_seed


@lru_cache(maxsize=4)
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
    if step < 0:
        raise ConfigError(f"step must be 0 or more, found {step}")
    places = range(step * batch_rows, (step + 1) * batch_rows)
    return np.array([row_at(place, rows=rows, seed=seed, digest=digest) for place in places])


def row_at(place: int, *, rows: int, seed: int, digest: str) -> int:
    """The row at a place in the sequence of all epochs."""
    return int(_permutation(seed, digest, place // rows, rows)[place % rows])
