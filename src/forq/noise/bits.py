"""Counter-based random bits: a pure function of (seed, leaf name, stream, position).

The generator is Philox-4×64 with ten rounds (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*,
SC 2011), in NumPy's C form. Nothing that was drew before, no order, chunking, thread or device changes a bit:

    key     = (run seed, leaf id)
    counter = (block, low word of the direction's seed, stream, 0);  a block is four 64-bit words

so word w of a direction sits at lane w mod 4 of block w // 4, and can be computed alone.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

Drawn = NDArray[np.float32 | np.int32]
"""What a law fills; int32 only where it draws integers."""

UInt64 = NDArray[np.uint64]

_WORD = (1 << 64) - 1

_LANES = 4


@cache
def leaf_id(name: str) -> int:
    """64-bit identity of a leaf, from its name alone: leaves of one shape never share their noise."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


class _Generator(threading.local):
    """One generator per thread, re-aimed for every draw: building a new one costs fifty times as much."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)
        self.state = self.philox.state

    def words(self, key: tuple[int, int], counter: int, count: int) -> UInt64:
        # NumPy increments the counter before it generates, so it is aimed one block early.
        early = (counter - 1) % (1 << 256)
        self.state["state"] = {
            "counter": np.array([early >> shift & _WORD for shift in (0, 64, 128, 192)], dtype=np.uint64),
            "key": np.array(key, dtype=np.uint64),
        }
        self.state["buffer_pos"] = _LANES
        self.philox.state = self.state
        return np.asarray(self.philox.random_raw(count), dtype=np.uint64)


_generator = _Generator()


@dataclass(frozen=True, slots=True)
class Bits:
    """The endless row of random bits that belongs to one (seed, leaf, stream).

    Attributes:
        seed: 128-bit direction seed, see :func:`forq.scalars.moves.direction_seed`.
        leaf: leaf id, see :func:`leaf_id`.
        stream: separates independent uses of one direction (1 and 2: two roundings of it, …).
        rows: (stride, count): element i belongs to output row ``i // stride % count`` of its layer.
    """

    seed: int
    leaf: int
    stream: int = 0
    rows: tuple[int, int] = (1, 1)

    def words(self, start: int, count: int) -> UInt64:
        """Words ``start … start + count − 1`` as uint64."""
        block, skip = divmod(start, _LANES)
        counter = self.stream << 128 | (self.seed & _WORD) << 64 | block
        return _generator.words((self.seed >> 64, self.leaf), counter, skip + count)[skip:]

    def bytes(self, start: int, count: int) -> NDArray[np.uint8]:
        """Bytes ``start … start + count − 1`` of the row, words in little-endian order."""
        first = start // 8
        words = self.words(first, -(-(start + count) // 8) - first)
        return words.astype("<u8", copy=False).view(np.uint8)[start - 8 * first :][:count]

    def uniform32(self, start: int, count: int) -> NDArray[np.uint32]:
        """32-bit integers ``start … start + count − 1``, two to a word, low half first."""
        return self.bytes(4 * start, 4 * count).view("<u4")

    def on(self, stream: int) -> Bits:
        """Another stream of the same direction."""
        return replace(self, stream=stream)
