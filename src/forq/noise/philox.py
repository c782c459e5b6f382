"""Words of Philox-4×64: by philox.c where a compiler is at hand, else by NumPy's generator; the same either way.

Every function takes a key (two 64-bit words) and a direction: the second and third word of the counter. The first word
of the counter is the number of the block, and a block is four words.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from ctypes import c_size_t, c_uint64, c_void_p
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forq.compiler import compiled

UInt64 = NDArray[np.uint64]
Places = NDArray[np.int64]
Pair = tuple[int, int]

LANES = 4
"""Words of a block."""

_SPAN = 1 << 18
"""Most words that NumPy draws to look single ones up."""


def words(key: Pair, direction: Pair, start: int, count: int) -> UInt64:
    """Words ``start … start + count − 1``."""
    block, skip = divmod(start, LANES)
    native = _library()
    if native is None:
        return _generator.words(key, direction, block, skip + count)[skip:]
    blocks = -(-(skip + count) // LANES)
    out = np.empty(LANES * blocks, dtype=np.uint64)
    native.words(_pair(key), _pair(direction), c_uint64(block), _at(out), c_size_t(blocks))
    return out[skip : skip + count]


def words_at(key: Pair, direction: Pair, places: Places) -> UInt64:
    """The words at places, which rise."""
    native, out = _library(), np.empty(len(places), dtype=np.uint64)
    if native is not None:
        wanted = np.ascontiguousarray(places, dtype=np.uint64)
        native.words_at(_pair(key), _pair(direction), _at(wanted), _at(out), c_size_t(len(out)))
        return out
    for first, last in _near(places):
        start = int(places[first])
        drawn = words(key, direction, start, int(places[last - 1]) + 1 - start)
        out[first:last] = drawn[places[first:last] - start]
    return out


@cache
def _library() -> ctypes.CDLL | None:
    found = compiled(Path(__file__).with_suffix(".c"))
    return None if isinstance(found, str) else found


class _Generator(threading.local):
    """One generator per thread, set to a new counter for every draw: building a generator costs fifty times as much."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)
        self.state = self.philox.state

    def words(self, key: Pair, direction: Pair, block: int, count: int) -> UInt64:
        # NumPy increments the counter before it generates, so it is aimed one block early.
        early = (direction[1] << 128 | direction[0] << 64 | block) - 1 & (1 << 256) - 1
        self.state["state"] = {
            "counter": np.array([early >> shift & (1 << 64) - 1 for shift in (0, 64, 128, 192)], dtype=np.uint64),
            "key": np.array(key, dtype=np.uint64),
        }
        self.state["buffer_pos"] = LANES
        self.philox.state = self.state
        return np.asarray(self.philox.random_raw(count), dtype=np.uint64)


_generator = _Generator()


def _near(places: Places) -> Iterator[tuple[int, int]]:
    """Runs of places, as ranges of their numbers, that lie within a span."""
    first = 0
    while first < len(places):
        last = int(np.searchsorted(places, places[first] + _SPAN))
        yield first, last
        first = last


def _pair(pair: Pair) -> ctypes.Array[c_uint64]:
    return (c_uint64 * 2)(*pair)


def _at(array: NDArray[np.generic]) -> c_void_p:
    return c_void_p(array.ctypes.data)
